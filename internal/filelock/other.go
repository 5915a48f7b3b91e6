//go:build !unix && !windows

package filelock

import (
	"errors"
	"os"
)

// Try: without locks, two processes could hold one thing.
func Try(*os.File) (bool, error) {
	return false, errors.New("this system has no file locks that are known here")
}
