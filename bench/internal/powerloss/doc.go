// Package powerloss is a disk that forgets what was not synced. It is for tests, on Linux with amd64 or arm64.
//
// A [Disk] watches a folder while a program works in it, whatever the program is made of: a seccomp filter hands every
// pwrite, ftruncate, fsync, unlink and rename of the program to the test, which carries it out and takes it down. Power
// can so be cut before any one of them, and what is known outlives a kill -9, because the test knows it:
//
//	disk, err := powerloss.New(folder)
//	disk.CutBefore(func(op powerloss.Op) bool { return op.Kind == powerloss.Sync })
//	err = disk.Start(cmd)
//	<-disk.Lost()                                    // from here on nothing reaches the disk, and the program hangs
//	err = cmd.Process.Kill()
//	err = cmd.Wait()
//	forgotten, err := disk.Restore(powerloss.Loss{}) // the folder is what it was at the last syncs
//
// What is durable is what the calls promise and no more: the content of a file by fsync or fdatasync of the file, its
// name in the folder, and the absence of a removed one, by fsync of the folder. File systems in use keep more than that.
// Of the rest, [Loss] says what survives: nothing, or any part of it in any order, down to single sectors. Files whose
// names end in -shm, which SQLite maps into memory and never syncs, are lost, or left as garbage.
//
// A program that changes a file in another way (write, a mapping, O_TRUNC) is not understood; [Disk.Restore] notices and
// ends with [ErrBehind]. Of folders only the one is watched, not those in it.
//
// [Disk.Start] starts one goroutine, which answers the program's calls until [Disk.Restore] or [Disk.Close].
package powerloss
