package store

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
)

const SQLiteDriver = sqliteDriver

var SQLiteDSN = sqliteDSN

// SetEpoch makes s hold an epoch that another process took: several replicas will share one.
func SetEpoch(s *Store, epoch Epoch) { s.epoch = epoch }

// Pragma runs a statement on the writing connection.
func Pragma(tb testing.TB, s *Store, query string) {
	tb.Helper()
	err := s.Commit(context.Background(), s.Epoch(), func(tx *Tx) error { return tx.w.exec(query) })
	if err != nil {
		tb.Fatal(err)
	}
}

// EndConnection has the server end the writing connection in the middle of a job.
func (tx *Tx) EndConnection() error {
	var pid int
	if err := tx.row([]any{&pid}, "SELECT pg_backend_pid()"); err != nil {
		return err
	}
	_, err := tx.w.engine.reader().Exec(fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", pid))
	return err
}

// Resolve asks what became of the transaction that was committed or rolled back last.
func Resolve(s *Store, cause error) (bool, error) { return s.engine.resolve(cause) }

func WriteConnection(tb testing.TB, s *Store) *sql.Conn {
	tb.Helper()
	conn, err := s.engine.(*sqliteEngine).write.Conn(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

func AssertDurable(conn *sql.Conn) error { return assertDurable(context.Background(), conn) }

func Reader(s *Store) *sql.DB { return s.engine.reader() }
