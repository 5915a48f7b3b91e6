package store

import (
	"database/sql"
	"errors"
	"time"
)

// Tx is what a job works with. It is good until the job returns, on the job's goroutine.
type Tx struct {
	MediaTx
	w     *writer
	err   error // the first failed statement: the job cannot succeed any more
	wrote bool
	over  bool
	rows  []func() // end what [foreign] opened
}

var errOver = errors.New("the transaction is over")

func newTx(w *writer) *Tx {
	tx := &Tx{w: w}
	tx.MediaTx.db = tx
	return tx
}

func (tx *Tx) now() time.Time { return tx.w.store.opts.Now() }

// AfterCommit has fn called on the writer's goroutine once the job is durable, before [Store.Commit] returns, in the
// order of the jobs. It is not called when the job or the commit fails. fn must be short and must not call Commit.
func (tx *Tx) AfterCommit(fn func()) {
	tx.w.hooks = append(tx.w.hooks, fn)
}

// undo has fn called if the job or its group fails, before anything else runs.
func (tx *Tx) undo(fn func()) {
	tx.w.undo = append(tx.w.undo, undoing{fn: fn})
}

func (tx *Tx) ready(args []any) error {
	switch {
	case tx.over:
		return errOver
	case tx.err != nil:
		return tx.err
	}
	tx.wrote = true
	for _, arg := range args {
		switch v := arg.(type) {
		case []byte:
			tx.w.bytes += len(v)
		case string:
			tx.w.bytes += len(v)
		}
	}
	return nil
}

func (tx *Tx) exec(query string, args ...any) (rows int64, err error) {
	if err = tx.ready(args); err != nil {
		return 0, err
	}
	st, err := tx.w.statement(query)
	if err == nil {
		var result sql.Result
		if result, err = st.Exec(args...); err == nil {
			rows, err = result.RowsAffected()
		}
	}
	if err != nil {
		tx.err = err
	}
	return rows, err
}

// row reads one row; ErrNotFound when there is none.
func (tx *Tx) row(into []any, query string, args ...any) error {
	if err := tx.ready(args); err != nil {
		return err
	}
	st, err := tx.w.statement(query)
	if err == nil {
		err = st.QueryRow(args...).Scan(into...)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		tx.err = err
	}
	return err
}

// each calls scan for every row of a query.
func (tx *Tx) each(scan func(rows *sql.Rows) error, query string, args ...any) error {
	if err := tx.ready(args); err != nil {
		return err
	}
	st, err := tx.w.statement(query)
	if err == nil {
		err = scanAll(st, scan, args)
	}
	if err != nil {
		tx.err = err
	}
	return err
}

func scanAll(st *sql.Stmt, scan func(rows *sql.Rows) error, args []any) error {
	rows, err := st.Query(args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err = scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// changed turns "no row was changed" into ErrNotFound.
func changed(rows int64, err error) error {
	if err == nil && rows == 0 {
		return ErrNotFound
	}
	return err
}
