package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rs/zerolog"
)

// Probe says what would keep [Open] from opening the database, and changes nothing: the schema stays as it is, and a
// process that holds the store goes on holding it. [ErrInUse] means that another process holds a SQLite database. A
// SQLite database that does not exist yet is [ErrNotFound].
func Probe(ctx context.Context, uri string) error {
	path, isSQLite, err := sqlitePath(uri)
	if err != nil {
		return err
	}
	if isSQLite {
		return probeSQLite(ctx, path)
	}
	parsed, err := postgresURI(uri)
	if err != nil {
		return err
	}
	db, err := openPool(parsed, 1)
	if err == nil {
		err = errors.Join(probeVersion(ctx, db), db.Close())
	}
	if err != nil {
		return fmt.Errorf("opening the database at %s: %w", parsed.Host, redact(err, parsed))
	}
	return nil
}

func probeSQLite(ctx context.Context, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return doing(ErrNotFound, "opening the database %s", path)
	}
	lock, err := lockFile(path)
	if err != nil {
		return err
	}
	// Reading a WAL database may make its -wal and -shm files; nothing else is written.
	e := &sqliteEngine{path: path, log: zerolog.Nop(), lock: lock, stop: make(chan struct{})}
	e.read, err = sql.Open(sqliteDriver, sqliteDSN(path, true))
	if err == nil {
		err = probeVersion(ctx, e.read)
	}
	if err = errors.Join(err, e.closeFiles()); err != nil {
		return fmt.Errorf("opening the database %s: %w", path, err)
	}
	return nil
}

// probeVersion reaches the database and refuses one whose schema is from a newer Trestle.
func probeVersion(ctx context.Context, db *sql.DB) error {
	_, err := schemaVersion(ctx, db)
	return err
}

// schemaVersion is 0 for a database without a schema. One that this program cannot read is an error.
func schemaVersion(ctx context.Context, db *sql.DB) (version int, err error) {
	if err = db.PingContext(ctx); err != nil {
		return 0, err
	}
	var compatible int
	if err = db.QueryRowContext(ctx, "SELECT version, compat FROM "+versionTable).Scan(&version, &compatible); err != nil {
		// No schema yet; but whoever cannot even read this cannot read anything.
		var one int
		return 0, db.QueryRowContext(ctx, "SELECT 1").Scan(&one)
	}
	if known := len(upgradeTable()); compatible > known {
		return 0, fmt.Errorf("the schema has version %d, and this program knows %d: run the newer program", version, known)
	}
	return version, nil
}
