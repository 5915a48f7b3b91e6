package bridge

// RunCommand is [Main] without the process around it.
var RunCommand = run
