package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"
)

// Visitor is a database beside the process that holds it, if there is one: it reads dead letters, and writes down what an
// operator wants done with them. It takes nothing over: the process that holds the store goes on, and no epoch is raised.
// What it writes are requests and never progress, so they do not pass the writer; who holds the store carries them out.
type Visitor struct {
	read  *reader
	write *sql.DB
	uri   *url.URL // of PostgreSQL: what errors must not tell
}

// Visit opens a database for a [Visitor]. It changes nothing, and works whether or not another process holds the store.
// A schema that is not the one of this program is an error that says which of the two is to be changed. A SQLite database
// that does not exist yet is [ErrNotFound].
func Visit(ctx context.Context, uri string) (*Visitor, error) {
	path, isSQLite, err := sqlitePath(uri)
	if err != nil {
		return nil, err
	}
	if isSQLite {
		v, err := visitSQLite(ctx, path)
		return v, doing(err, "opening the database %s", path)
	}
	parsed, err := postgresURI(uri)
	if err != nil {
		return nil, err
	}
	v := &Visitor{uri: parsed}
	if v.write, err = openPool(parsed, 2); err == nil {
		v.read = newReader(v.write, func(query string) string { return query }, nil)
		err = visitVersion(ctx, v.write)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database at %s: %w", parsed.Host, redact(errors.Join(err, v.Close()), parsed))
	}
	return v, nil
}

func visitSQLite(ctx context.Context, path string) (*Visitor, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	v := &Visitor{}
	read, err := sql.Open(sqliteDriver, sqliteDSN(path, true))
	if err != nil {
		return nil, err
	}
	read.SetMaxOpenConns(1)
	v.read = newReader(read, sqlitePlaceholders, nil)
	if v.write, err = sql.Open(sqliteDriver, sqliteDSN(path, false)); err == nil {
		v.write.SetMaxOpenConns(1)
		err = visitVersion(ctx, read)
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// visitVersion refuses a schema that lacks what this program reads, and one that this program cannot read.
func visitVersion(ctx context.Context, db *sql.DB) error {
	switch version, err := schemaVersion(ctx, db); {
	case err != nil:
		return err
	case version == 0:
		return errors.New("there is nothing in it yet: start the bridge, which fills it")
	case version < len(upgradeTable()):
		return fmt.Errorf("the schema has version %d, and this program needs %d: start the bridge with this program, which brings it up to date",
			version, len(upgradeTable()))
	}
	return nil
}

// Close closes the database.
func (v *Visitor) Close() error {
	var errs []error
	if v.read != nil && v.read.db != v.write {
		errs = append(errs, v.read.db.Close())
	}
	if v.write != nil {
		errs = append(errs, v.write.Close())
	}
	return v.telling(errors.Join(errs...))
}

// telling keeps passwords out of errors.
func (v *Visitor) telling(err error) error {
	if v.uri == nil {
		return err
	}
	return redact(err, v.uri)
}

// DeadLetters is [Store.DeadLetters].
func (v *Visitor) DeadLetters(ctx context.Context, q LetterQuery) ([]DeadLetter, error) {
	letters, err := v.read.deadLetters(ctx, q)
	return letters, v.telling(err)
}

// DeadLetter is [Store.DeadLetter].
func (v *Visitor) DeadLetter(ctx context.Context, id int64) (*DeadLetter, error) {
	letter, err := v.read.deadLetter(ctx, id)
	return letter, v.telling(err)
}

// DeadLetterCount is [Store.DeadLetterCount].
func (v *Visitor) DeadLetterCount(ctx context.Context) (int64, error) {
	n, err := v.read.deadLetterCount(ctx)
	return n, v.telling(err)
}

// visitBusyTimeout is how long a request waits for the writer's transaction, in milliseconds. The writer waits for a
// request too, which takes no longer than one wait for the disk.
const visitBusyTimeout = 10_000

// visitPause comes after each request on SQLite, which gives nobody a turn: whoever waits for the lock looks again every
// 100 ms at the latest, and must find it free. Without the pause, request after request could starve the writer.
const visitPause = 120 * time.Millisecond

// Request writes down what is to be done with the dead letters: [ActionReplay] or [ActionDrop]. Who holds the store does
// it within seconds, or does it at its next start; [Visitor.Answer] says what came of it. A newer request for a letter
// takes the place of one that has not been carried out. missing are those that are not there.
func (v *Visitor) Request(ctx context.Context, action string, letters ...int64) (missing []int64, err error) {
	err = v.request(ctx, func(ask *sql.Stmt) error {
		for _, letter := range letters {
			result, err := ask.ExecContext(ctx, action, toMillis(time.Now()), letter)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				missing = append(missing, letter)
			}
		}
		return nil
	})
	return missing, v.telling(doing(err, "asking for a %s", action))
}

func (v *Visitor) request(ctx context.Context, run func(ask *sql.Stmt) error) error {
	conn, err := v.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if v.uri == nil {
		// Writing back the WAL is for the process that holds the store.
		for _, pragma := range []string{fmt.Sprintf("PRAGMA busy_timeout = %d", visitBusyTimeout), "PRAGMA wal_autocheckpoint = 0"} {
			if _, err = conn.ExecContext(ctx, pragma); err != nil {
				return err
			}
		}
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if v.uri != nil {
		// The process that holds the store must not wait for one that was stopped in the middle.
		if _, err = tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = '10s'"); err != nil {
			return err
		}
	}
	ask, err := tx.PrepareContext(ctx, v.read.placeholders(`INSERT INTO letter_request (letter, action, asked, answered, result, cause, went_to)
		SELECT id, CAST($1 AS TEXT), CAST($2 AS BIGINT), 0, '', '', 0 FROM dead_letter WHERE id = $3
		ON CONFLICT (letter) DO UPDATE SET action = excluded.action, asked = excluded.asked, answered = 0, result = '', cause = '', went_to = 0`))
	if err != nil {
		return err
	}
	defer ask.Close()
	if err = run(ask); err != nil {
		return err
	}
	if err = tx.Commit(); err == nil && v.uri == nil {
		time.Sleep(visitPause)
	}
	return err
}

// Answer reads the request for a dead letter, and what came of it; ErrNotFound when nobody has asked in the last days.
func (v *Visitor) Answer(ctx context.Context, letter int64) (*LetterRequest, error) {
	var r LetterRequest
	if err := v.read.one(ctx, r.columns(), requestColumns+`WHERE letter = $1`, letter); err != nil {
		return nil, v.telling(doing(err, "reading the request for dead letter %d", letter))
	}
	return &r, nil
}

// Fate is what has become so far of something that was replayed.
type Fate struct {
	Waits    bool   // it is in its lane: waiting, or under way
	Attempts int    // of what waits: how many have failed
	Cause    string // of the last one
	Dead     []DeadLetter
}

// Fate says what has become of a dead letter that was replayed, by kind the letter's. Neither waiting nor dead, it is done.
func (v *Visitor) Fate(ctx context.Context, kind string, r *LetterRequest) (*Fate, error) {
	f, err := v.fate(ctx, kind, r)
	return f, v.telling(doing(err, "looking for what became of dead letter %d", r.Letter))
}

func (v *Visitor) fate(ctx context.Context, kind string, r *LetterRequest) (*Fate, error) {
	f := &Fate{}
	if r.Went == 0 {
		return f, nil
	}
	// What waits first: it becomes a dead letter in one commit, and would not be seen in between.
	sign, err := "<>", error(nil)
	if kind == "outbox" {
		sign = "="
		err = v.read.one(ctx, []any{&f.Attempts, text{&f.Cause}}, `SELECT attempts, CASE WHEN attempts > 0 THEN cause ELSE '' END FROM outbox WHERE id = $1`, r.Went)
	} else {
		err = v.read.one(ctx, []any{&f.Attempts, text{&f.Cause}}, `SELECT CAST(COALESCE(MAX(p.attempts), 0) AS BIGINT), COALESCE(MAX(p.cause), '')
			FROM inbox i LEFT JOIN progress p ON p.seq = i.seq WHERE i.seq = $1 GROUP BY i.seq`, r.Went)
	}
	if f.Waits = err == nil; err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	err = v.read.each(ctx, func(rows *sql.Rows) error {
		var d DeadLetter
		err := rows.Scan(d.columns()...)
		f.Dead = append(f.Dead, d)
		return err
	}, `SELECT `+letterColumns+` FROM dead_letter WHERE id > $1 AND came_from = $2 AND kind `+sign+` 'outbox' ORDER BY id LIMIT 100`, r.Letter, r.Went)
	return f, err
}
