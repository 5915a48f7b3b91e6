package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
)

const (
	// busyTimeout is how long a connection waits for another one's lock, in milliseconds. The writer waits for less: who waits for a commit may wait for a short time only, and can
	// try again.
	busyTimeout      = 10_000
	writeBusyTimeout = 2_000
	readers          = 4
	// readerCache is how much of the file, in KiB, each reader keeps: they read back rows of the inbox, once each.
	readerCache = 512
)

// sqliteEngine keeps the database in one file, held by one process.
type sqliteEngine struct {
	path  string
	log   zerolog.Logger
	lock  *fileLock
	write *sql.DB // the writer's connection, and one for checkpoints
	read  *sql.DB

	lastOutboxID int64 // that outboxIDs gave; the writer's

	// walBytes is about how much of the WAL is not yet in the database file; the writer's.
	walBytes int
	wake     chan struct{} // to the checkpointer
	finish   atomic.Bool   // the checkpointer has done its part
	stop     chan struct{}
	running  sync.WaitGroup
}

func openSQLite(ctx context.Context, path string, log zerolog.Logger) (_ *sqliteEngine, err error) {
	if err = prepareFile(path); err != nil {
		return nil, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	e := &sqliteEngine{path: path, log: log, lock: lock, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = e.closeFiles()
			err = fmt.Errorf("opening the database %s: %w", path, err)
		}
	}()
	if err = setPageSize(ctx, path); err != nil {
		return nil, err
	}
	if e.write, err = sql.Open(sqliteDriver, sqliteDSN(path, false)); err != nil {
		return nil, err
	}
	e.write.SetMaxOpenConns(2)
	e.write.SetMaxIdleConns(2)
	if e.read, err = sql.Open(sqliteDriver, sqliteDSN(path, true)); err != nil {
		return nil, err
	}
	e.read.SetMaxOpenConns(readers)
	e.read.SetMaxIdleConns(readers)
	if err = upgrade(ctx, e.write, sqliteDriver); err != nil {
		return nil, err
	}
	e.running.Go(e.checkpoints)
	return e, nil
}

// prepareFile makes the file, for its owner only: SQLite would make it readable for all.
func prepareFile(path string) error {
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("opening the database %s: the folder %s does not exist: create it, or change the path in the database URI", path, folder)
	} else if err == nil && !info.IsDir() {
		return fmt.Errorf("opening the database %s: %s is not a folder: change the path in the database URI", path, folder)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the database: %w: it must be a file that this user can write", err)
	}
	defer f.Close()
	if err = f.Chmod(0o600); err != nil {
		return fmt.Errorf("keeping the database %s private: %w", path, err)
	}
	return nil
}

// pageSize is that of new databases; others keep theirs. A transaction of the homeserver takes dozens of pages, and each
// costs system calls; larger ones would cost small commits more.
const pageSize = 8 << 10

// setPageSize comes before the first connection that sets WAL mode, with which it is fixed.
func setPageSize(ctx context.Context, path string) error {
	if info, err := os.Stat(path); err != nil || info.Size() > 0 {
		return err
	}
	db, err := sql.Open(sqliteDriver, fileURI(path))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA page_size = %d; PRAGMA journal_mode = WAL", pageSize))
	return errors.Join(err, db.Close())
}

func busyFor(readOnly bool) int {
	if readOnly {
		return busyTimeout
	}
	return writeBusyTimeout
}

// fileURI is the form in which SQLite takes any path.
func fileURI(path string) string {
	return "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
}

func (e *sqliteEngine) placeholders(query string) string { return sqlitePlaceholders(query) }

func sqlitePlaceholders(query string) string { return strings.ReplaceAll(query, "$", "?") }

func (e *sqliteEngine) reader() *sql.DB { return e.read }

func (e *sqliteEngine) dialect() string { return sqliteDriver }

func (e *sqliteEngine) foreignArgs(args []any) []any { return utcArgs(args) }

// writerPragmas: the writer never checkpoints by itself, keeps the undo of savepoints in memory, and lets a WAL that
// has grown large be cut when it is used again.
var writerPragmas = []string{
	"PRAGMA wal_autocheckpoint = 0",
	"PRAGMA temp_store = MEMORY",
	"PRAGMA cache_size = -2048",
	fmt.Sprintf("PRAGMA journal_size_limit = %d", maxWAL),
}

func (e *sqliteEngine) connect(ctx context.Context) (*sql.Conn, error) {
	conn, err := e.write.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", e.path, err)
	}
	for _, pragma := range writerPragmas {
		if _, err = conn.ExecContext(ctx, pragma); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("setting up the database %s: %s: %w", e.path, pragma, err)
		}
	}
	if err = assertDurable(ctx, conn); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("setting up the database %s: %w", e.path, err)
	}
	return conn, nil
}

// assertDurable makes sure that a commit is on disk when it returns. A driver may have compiled in less.
func assertDurable(ctx context.Context, conn *sql.Conn) error {
	var mode string
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if !strings.EqualFold(mode, "wal") {
		return fmt.Errorf("journal_mode is %q instead of WAL: the file system may not allow it (network file systems do not)", mode)
	}
	var level int
	if err := conn.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level); err != nil {
		return err
	}
	if level < 2 {
		return fmt.Errorf("synchronous is %d instead of 2 (FULL): commits would not survive a power loss", level)
	}
	return nil
}

// takeEpoch: the lock file keeps others out, so that raising the number is all.
func (e *sqliteEngine) takeEpoch(ctx context.Context, conn *sql.Conn) (Epoch, error) {
	var epoch Epoch
	err := conn.QueryRowContext(ctx, "UPDATE epoch SET value = value + 1 WHERE id = 1 RETURNING value").Scan(&epoch)
	return epoch, err
}

const selectEpoch = "SELECT value FROM epoch WHERE id = 1"

func (e *sqliteEngine) begin(w *writer) (Epoch, error) {
	begin, err := w.statement("BEGIN IMMEDIATE")
	if err != nil {
		return 0, err
	}
	read, err := w.statement(selectEpoch)
	if err != nil {
		return 0, err
	}
	if _, err = begin.Exec(); err != nil {
		return 0, err
	}
	var epoch Epoch
	err = read.QueryRow().Scan(&epoch)
	return epoch, err
}

func (e *sqliteEngine) commit() string { return "COMMIT" }

func (e *sqliteEngine) insert(tx *Tx, row *newRow) (bool, error) {
	_, err := tx.exec(`INSERT INTO seen (seq, received, hashes) VALUES ($1, $2, $3)`, row.seq, row.received, row.hashes)
	if err == nil && row.events > 0 {
		_, err = tx.exec(`INSERT INTO inbox (seq, received, events, lanes, body) VALUES ($1, $2, $3, $4, $5)`,
			row.seq, row.received, row.events, row.lanes, row.body)
	}
	return err == nil, err
}

// outboxIDs: nobody else writes, and a row that is written with its ID moves the table's own number on.
func (e *sqliteEngine) outboxIDs(tx *Tx, n int) ([]int64, error) {
	var last int64
	err := tx.row([]any{&last}, `SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'`)
	e.lastOutboxID = max(e.lastOutboxID, last)
	ids := make([]int64, n)
	for i := range ids {
		e.lastOutboxID++
		ids[i] = e.lastOutboxID
	}
	return ids, err
}

// enqueueAtOnce is how many rows a statement writes: less than a third of what each takes alone.
const enqueueAtOnce = 16

var enqueueRow, enqueueRows = enqueueStatement(1), enqueueStatement(enqueueAtOnce)

func enqueueStatement(rows int) string {
	const row = ", (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	return "INSERT INTO outbox (id, lane, key, op, txn_id, doubt, attempts, next_at, created, cause, payload) VALUES" +
		strings.Repeat(row, rows)[1:]
}

func (e *sqliteEngine) enqueue(tx *Tx, rows []*Outgoing) error {
	for len(rows) > 0 {
		query, n := enqueueRow, 1
		if len(rows) >= enqueueAtOnce {
			query, n = enqueueRows, enqueueAtOnce
		}
		args := make([]any, 0, 11*n)
		for _, row := range rows[:n] {
			args = append(append(args, row.ID), row.columns()...)
		}
		if _, err := tx.exec(query, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// missed: there is one process, so that there is nothing to learn from others.
func (e *sqliteEngine) missed(*Tx, int64) ([]seenRow, error) { return nil, nil }

// resolve: a COMMIT that fails has been rolled back.
func (e *sqliteEngine) resolve(context.Context, error) (bool, error) { return false, nil }

func (e *sqliteEngine) close() error {
	close(e.stop)
	e.running.Wait()
	e.checkpointAll()
	return e.closeFiles()
}

func (e *sqliteEngine) closeFiles() error {
	var errs []error
	for _, db := range []*sql.DB{e.read, e.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, e.lock.unlock())...)
}
