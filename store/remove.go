package store

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// created finds the tables in the schema's files.
var created = regexp.MustCompile(`(?m)^CREATE TABLE (?:IF NOT EXISTS )?(\w+)`)

// Remove deletes a database and everything in it, for good: with SQLite its files but for PATH.lock, which is empty and
// stays, because whoever waits for it must not be given another one; on PostgreSQL the store's own tables. A SQLite database
// that another process holds is [ErrInUse]; of PostgreSQL the caller must know that nobody works on it. One that is not
// there is no error.
func Remove(ctx context.Context, uri string) error {
	path, isSQLite, err := sqlitePath(uri)
	if err != nil {
		return err
	}
	if isSQLite {
		return removeSQLite(path)
	}
	parsed, err := postgresURI(uri)
	if err != nil {
		return err
	}
	db, err := openPool(parsed, 1)
	if err == nil {
		var tables []string
		if tables, err = allTables(); err == nil {
			_, err = db.ExecContext(ctx, "DROP TABLE IF EXISTS "+strings.Join(tables, ", "))
		}
		_ = db.Close()
	}
	if err != nil {
		return fmt.Errorf("deleting the tables in the database at %s: %w", parsed.Host, redact(err, parsed))
	}
	return nil
}

func allTables() ([]string, error) {
	tables := append([]string{versionTable}, keyTables...)
	files, err := upgradeFiles.ReadDir("upgrades")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := upgradeFiles.ReadFile("upgrades/" + file.Name())
		if err != nil {
			return nil, err
		}
		for _, match := range created.FindAllSubmatch(text, -1) {
			tables = append(tables, string(match[1]))
		}
	}
	return tables, nil
}

func removeSQLite(path string) error {
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil
	}
	lock, err := lockFile(path)
	if err != nil {
		return err
	}
	defer func() { _ = lock.unlock() }()
	// The database last: what is left after an error can be removed again.
	for _, suffix := range []string{"-wal", "-shm", "-journal", ""} {
		if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("deleting the database: %w", err)
		}
	}
	return nil
}
