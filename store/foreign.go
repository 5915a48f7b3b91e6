package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"go.mau.fi/util/dbutil"
)

// Foreign gives mautrix's stores access to their tables, which share this database. What runs with a context of [Tx.Context]
// is part of that job. Without one there is only reading, of what is committed: a statement that writes is [ErrNoTx].
//
// The transactions of dbutil (DoTxn, BeginTx) are not to be had, and fail as those of a closed database: the writer's is the only one.
func (s *Store) Foreign() (*dbutil.Database, error) {
	closed := sql.OpenDB(failing{ErrNoTx})
	_ = closed.Close()
	db, err := dbutil.NewWithDB(closed, s.engine.dialect())
	if err != nil {
		return nil, err
	}
	db.LoggingDB.UnderlyingExecable = foreign{s}
	return db, nil
}

// ErrNoTx: something was to be written for which a job is needed.
var ErrNoTx = errors.New("writing needs a job of Store.Commit, whose Tx is in the context")

type txKey struct{}

// Context gives a context with which mautrix's stores, opened over [Store.Foreign], work inside the job.
func (tx *Tx) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, txKey{}, tx)
}

// TxOf gives the Tx of a context that [Tx.Context] made, or nil.
func TxOf(ctx context.Context) *Tx {
	tx, _ := ctx.Value(txKey{}).(*Tx)
	return tx
}

// OnRollback has fn called on the writer's goroutine if what the job did is undone, before anything else runs: also when the
// job runs again afterwards. It is for memory that the job has changed. fn must be short, and must not wait for anything.
func (tx *Tx) OnRollback(fn func()) { tx.undo(fn) }

// Fail makes the job fail with err, whatever it returns: for who cannot make sure that what he calls tells of every error.
func (tx *Tx) Fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// foreign runs the statements of others.
type foreign struct{ s *Store }

var _ dbutil.UnderlyingExecable = foreign{}

func (f foreign) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	tx := TxOf(ctx)
	if tx == nil {
		return nil, ErrNoTx
	}
	args = f.s.engine.foreignArgs(args)
	if err := tx.ready(args); err != nil {
		return nil, err
	}
	st, done, err := tx.foreignStatement(query, len(args))
	if err == nil {
		defer done()
		var result sql.Result
		if result, err = st.Exec(args...); err == nil {
			return result, nil
		}
	}
	tx.err = err
	return nil, err
}

func (f foreign) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	args = f.s.engine.foreignArgs(args)
	tx := TxOf(ctx)
	if tx == nil {
		if !isRead(query) {
			return nil, ErrNoTx
		}
		rows, err := f.s.engine.reader().QueryContext(ctx, query, args...)
		return rows, f.s.read.comparable(err)
	}
	if err := tx.ready(args); err != nil {
		return nil, err
	}
	st, done, err := tx.foreignStatement(query, len(args))
	if err != nil {
		tx.err = err
		return nil, err
	}
	rows, err := st.Query(args...)
	if err != nil {
		done()
		tx.err = err
		return nil, err
	}
	// mautrix leaves rows open when it fails to understand one: nothing else could run on the connection.
	tx.rows = append(tx.rows, func() { _ = rows.Close(); done() })
	return rows, nil
}

func (f foreign) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	args = f.s.engine.foreignArgs(args)
	tx := TxOf(ctx)
	if tx == nil {
		if !isRead(query) {
			return failedRow(ErrNoTx)
		}
		return f.s.engine.reader().QueryRowContext(ctx, query, args...)
	}
	if err := tx.ready(args); err != nil {
		return failedRow(err)
	}
	st, done, err := tx.foreignStatement(query, len(args))
	if err != nil {
		tx.err = err
		return failedRow(err)
	}
	tx.rows = append(tx.rows, done)
	row := st.QueryRow(args...)
	if err := row.Err(); err != nil {
		tx.err = err
	}
	return row
}

// isRead says whether a statement only reads. The reading connections of SQLite refuse anything else by themselves.
func isRead(query string) bool {
	verb, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	return strings.EqualFold(strings.TrimSpace(verb), "SELECT")
}

// fewArgs bounds what is kept prepared: statements with lists in them have no end of forms.
const fewArgs = 24

func (tx *Tx) foreignStatement(query string, args int) (st *sql.Stmt, done func(), err error) {
	if args <= fewArgs {
		st, err = tx.w.statement(query)
		return st, func() {}, err
	}
	if tx.w.conn == nil {
		return nil, nil, driver.ErrBadConn
	}
	st, err = tx.w.conn.PrepareContext(context.Background(), query)
	return st, func() { _ = st.Close() }, err
}

// closeRows ends what the job left open.
func (tx *Tx) closeRows() {
	for _, done := range tx.rows {
		done()
	}
	tx.rows = nil
}

// utcArgs makes times that are compared as text comparable, and those that lose their zone right: PostgreSQL drops the zone
// of what goes into a column without one.
func utcArgs(args []any) []any {
	out := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case time.Time:
			out[i] = v.UTC()
		case *time.Time:
			if out[i] = nil; v != nil {
				out[i] = v.UTC()
			}
		default:
			out[i] = arg
		}
	}
	return out
}

// postgresArgs sends JSON as text: on the writer's connection bytes go as they are, and so a jsonb column does not take
// them. A bytea column takes the same bytes from text, if nothing in it is escaped.
func postgresArgs(args []any) []any {
	args = utcArgs(args)
	for i, arg := range args {
		if b, ok := arg.([]byte); ok && len(b) > 0 && b[0] == '{' && json.Valid(b) && !bytes.ContainsRune(b, '\\') {
			args[i] = string(b)
		}
	}
	return args
}

// failedRow is a row that has an error to tell.
func failedRow(err error) *sql.Row {
	db := sql.OpenDB(failing{err})
	defer db.Close()
	return db.QueryRow("")
}

// failing is a database that cannot be had.
type failing struct{ err error }

func (f failing) Connect(context.Context) (driver.Conn, error) { return nil, f.err }
func (f failing) Driver() driver.Driver                        { return nil }
