//go:build linux

package powerloss

import "golang.org/x/sys/unix"

// watchedHere are the calls that newer architectures have only with a folder's descriptor.
var watchedHere = []uint32{unix.SYS_UNLINK, unix.SYS_RENAME}
