package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// marker is the file by which the demo knows a directory as its own. It is locked while a demo uses the directory.
const marker = ".trestle-demo"

// ours are the files that the demo makes, and so may take away.
var ours = []string{"config.yaml", "registration.yaml", "bridge.db", "bridge.db-wal", "bridge.db-shm", "bridge.db.lock", "bridge.log", "trestle-irc"}

// takeDirectory makes the demo's directory, or empties it if an earlier demo made it. It is refused when it has files that no
// demo made, or when another demo is using it. The caller closes the file once the directory is free again.
func takeDirectory(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, marker)); errors.Is(err, os.ErrNotExist) && len(entries) > 0 {
		return nil, fmt.Errorf("%s has files that the demo did not make, such as %s, and it would write over some: name another directory with -data, or empty this one",
			dir, entries[0].Name())
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	mark, err := os.OpenFile(filepath.Join(dir, marker), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if free, err := tryLock(mark); err != nil || !free {
		if err == nil {
			err = fmt.Errorf("another demo is using %s: stop it, or name another directory with -data", dir)
		}
		return nil, errors.Join(err, mark.Close())
	}
	for _, name := range ours {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, mark.Close())
		}
	}
	return mark, nil
}
