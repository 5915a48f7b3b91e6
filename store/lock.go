package store

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/trestle-bridge/trestle/internal/filelock"
)

// fileLock keeps a second process away from a SQLite database. It is a file beside the database, which stays: deleting it
// would let two processes hold two files of the same name.
type fileLock struct{ f *os.File }

// lockFile locks the database at path, which exists. Links are followed, so that two names of one file exclude each other.
func lockFile(path string) (*fileLock, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	name := target + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the database %s: %w: its folder must be writable", path, err)
	}
	taken, err := filelock.Try(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking the database %s by %s: %w", path, name, err)
	}
	if !taken {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s: stop that process, or give this one a database of its own", ErrInUse, path)
	}
	return &fileLock{f}, nil
}

func (l *fileLock) unlock() error { return l.f.Close() }
