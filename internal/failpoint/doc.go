// Package failpoint names the steps of an event's journey, so that a test can end the process right before or right after any
// of them, as kill -9 does.
//
// Without the build tag failpoints the functions are empty and nothing of this package is in the program. With it
//
//	FAILPOINT="before commit:7" trestle-irc run
//
// ends the process with SIGKILL when it is about to commit for the seventh time. Without a number it is the first time.
// FAILPOINT_FROM names a file before whose being there nothing is counted.
//
// A simulation within one process has itself called at every step instead, and may let a commit fail: [Watch].
//
// The steps, each with "before" and "after":
//
//   - commit: COMMIT of the store
//   - 200: the answer to a transaction of the homeserver
//   - PUT send, PUT devices, POST register, POST join, POST createRoom and so on, by method and the last fixed word of the
//     path: a request to the homeserver, and its answer
//   - seal: encrypting a message for Matrix, and the commit of its ciphertext
//   - irc write: a line of a message to the IRC server
package failpoint
