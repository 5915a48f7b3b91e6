// Package seccomp lets this process answer chosen system calls of another program, whatever the program is made of. It
// is for tests and measurements, on Linux 5.5 and later with amd64 or arm64, and needs no privileges.
//
// [Start] puts a seccomp filter on a thread of its own and runs a function there. What the thread and the programs that
// it starts ask the kernel for, by one of the calls, waits until the handler has answered (seccomp_unotify(2)):
//
//	listener, err := seccomp.Start([]uint32{unix.SYS_FSYNC}, cmd.Start, func(c *seccomp.Call) { c.Continue() })
//	err = cmd.Wait()
//	listener.Close()
//
// A program that uses io_uring asks for some of these calls in a way that no filter sees.
//
// The handler runs on one goroutine, which [Listener.Close] ends, one call at a time. A handler that takes its time
// answers from a goroutine of its own, or it keeps the other threads of the program waiting.
package seccomp
