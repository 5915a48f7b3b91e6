package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
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

// HoldGroups has jobs of CommitSoon run at once, and wait for a job of Commit for as long as it takes.
func HoldGroups(tb testing.TB, s *Store) {
	tb.Helper()
	err := s.Commit(context.Background(), s.Epoch(), func(tx *Tx) error {
		tx.w.gather, tx.w.linger = 0, time.Hour
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// TrackRows bounds how many rows of one event are tracked, and says how many are.
func (tx *Tx) TrackRows(most int) (now int) {
	tx.w.maxTracked = most * (rowWeight + 1)
	if tx.w.tracked != len(tx.w.rows)*(rowWeight+1) {
		panic("the count of what is tracked is wrong")
	}
	return len(tx.w.rows)
}

// Behind runs a statement that the job does not hear of.
func (tx *Tx) Behind(query string) error { return tx.w.exec(query) }

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
func Resolve(s *Store, cause error) (bool, error) {
	return s.engine.resolve(context.Background(), cause)
}

// ResolveWith is Resolve with a server of the test's own.
func ResolveWith(ctx context.Context, c driver.Connector, cause error) (bool, error) {
	db := sql.OpenDB(c)
	defer db.Close()
	return (&postgresEngine{uri: &url.URL{}, write: db, log: zerolog.Nop(), transaction: "7"}).resolve(ctx, cause)
}

// ClosePostgres closes an engine with one connection that nobody uses.
func ClosePostgres(c driver.Connector) error {
	e := &postgresEngine{uri: &url.URL{}, write: sql.OpenDB(c)}
	conn, err := e.write.Conn(context.Background())
	if err == nil {
		err = conn.Close()
	}
	if err == nil {
		err = e.close()
	}
	return err
}

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

// SilentAfter has stores that are opened until the test ends give a silent PostgreSQL up sooner.
func SilentAfter(tb testing.TB, d time.Duration) {
	tb.Helper()
	before := silentAfter
	silentAfter = d
	tb.Cleanup(func() { silentAfter = before })
}

// WriterQueries are the statements that the writer has run.
func WriterQueries(tb testing.TB, s *Store) (queries []string) {
	tb.Helper()
	err := s.Commit(context.Background(), s.Epoch(), func(tx *Tx) error {
		queries = slices.Collect(maps.Keys(tx.w.statements))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return queries
}

// Remembers says whether a membership would be answered without asking the database.
func Remembers(s *Store, room, user string) bool {
	_, ok, _ := s.rooms.member(room, user)
	return ok
}

// ForgettableUsers is the query of who is forgotten.
const ForgettableUsers = forgettableUsers

// ForgetUser forgets a user who was found to be one that may be forgotten.
func (tx *Tx) ForgetUser(user string, unused time.Time) (int64, error) {
	return tx.forgetUser(user, unused)
}

// ForgetStranger forgets a user who was found to be one for whom nobody has asked.
func (tx *Tx) ForgetStranger(user string) (int64, error) { return tx.forgetStranger(user) }

// Commits is how many there were.
func Commits(s *Store) int64 { return s.tally.groups.Load() }
