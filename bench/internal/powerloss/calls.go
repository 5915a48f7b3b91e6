//go:build linux && (amd64 || arm64)

package powerloss

import (
	"slices"

	"golang.org/x/sys/unix"
)

// watched are the calls that are answered here. What changes a file by another one is noticed later.
var watched = slices.Concat([]uint32{
	unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2,
}, watchedHere)
