package proxy

import (
	"errors"
	"os"
	"syscall"
)

// reserveDisk has the disk set aside what a file will take, so that a full one is found out while the homeserver's answer can still be passed on without it.
// An error says that there is no room. File systems that cannot do it, and files whose length nobody knows, are found out as they are written.
func reserveDisk(file *os.File, size int64) error {
	if size < 0 {
		return nil
	}
	err := syscall.Fallocate(int(file.Fd()), 0, 0, headerSize+size)
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO} {
		if errors.Is(err, full) {
			return err
		}
	}
	return nil
}
