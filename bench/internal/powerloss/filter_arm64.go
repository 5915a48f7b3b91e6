//go:build linux

package powerloss

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

var watchedHere []uint32
