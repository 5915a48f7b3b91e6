package main

import (
	"runtime"
	"syscall"
)

// The bridge dies with the thread that started it, which must not end before the demo does: the main one never does.
func init() { runtime.LockOSThread() }

// attributes: Ctrl-C goes to the demo, which stops the bridge in its turn; and however the demo ends, the bridge ends with it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
