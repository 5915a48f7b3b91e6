// Package slowdisk makes syncs of programs take longer, so that what a program makes of a slow disk can be measured on a
// fast one. It works on Linux 5.5 and later with amd64 or arm64, without privileges; elsewhere [Start] says
// [ErrUnsupported].
//
//	disk, err := slowdisk.Start(time.Millisecond, cmd.Start)
//	err = cmd.Wait()
//	disk.Close()
//
// Each fsync and fdatasync of the program, and of all that it starts, waits so long before the kernel carries it out; a
// seccomp filter asks this process about them (package seccomp), which takes some microseconds more. Syncs that are under
// way at the same time wait at the same time, each for itself: a device whose queue is never full. The bandwidth is that
// of the real disk. Other ways to have something durable (msync, O_DSYNC, io_uring) are not slower.
//
// A [Disk] has one goroutine that takes calls, and one for each call that waits. [Disk.Close] ends them.
package slowdisk
