// Package overlay builds programs from sources in which words are replaced: controls, which show that a test would notice.
package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Replace is what is written in the place of words that a file has once: [2]string{old, new}, by the file's name.
type Replace map[string][2]string

// Less has SQLite's commits synced less by the driver that needs cgo: "OFF" or "NORMAL". The store asks for FULL and looks
// whether it got it, so both are replaced.
func Less(level string) Replace {
	return Replace{
		"sqlite_cgo.go": {"_synchronous=FULL", "_synchronous=" + level},
		"sqlite.go":     {"if level < 2 {", "if level < 0 {"},
	}
}

// Write writes the file by which `go build -overlay` takes files of a directory with words replaced. What it needs is kept in
// folder.
func Write(folder, directory string, replaced Replace) (path string, err error) {
	directory, err = filepath.Abs(directory)
	if err != nil {
		return "", err
	}
	paths := map[string]string{}
	for name, words := range replaced {
		source := filepath.Join(directory, name)
		text, err := os.ReadFile(source)
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(text), words[0]); n != 1 {
			return "", fmt.Errorf("%q is %d times in %s: whoever replaces it no longer knows that file", words[0], n, name)
		}
		paths[source] = filepath.Join(folder, name)
		if err = os.WriteFile(paths[source], []byte(strings.Replace(string(text), words[0], words[1], 1)), 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": paths})
	if err != nil {
		return "", err
	}
	path = filepath.Join(folder, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}
