//go:build !unix && !windows

package store

import (
	"errors"
	"os"
)

// tryLock: without locks, two processes could hold one database.
func tryLock(*os.File) (bool, error) {
	return false, errors.New("this system has no file locks that the store knows; use PostgreSQL")
}
