package storetest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// SQLite gives the URI of a database that does not exist yet.
func SQLite(tb testing.TB) string {
	return "sqlite:" + filepath.Join(tb.TempDir(), "store.db")
}

// New opens a store on a fresh SQLite database and closes it after the test.
func New(tb testing.TB) *store.Store {
	tb.Helper()
	return Open(tb, SQLite(tb), store.Options{})
}

// Open opens a store and closes it after the test. Closing it earlier, to open it again, is fine.
func Open(tb testing.TB, uri string, opts store.Options) *store.Store {
	tb.Helper()
	s, err := store.Open(context.Background(), uri, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("closing the store: %v", err)
		}
	})
	return s
}

// Commit runs a job that must succeed.
func Commit(tb testing.TB, s *store.Store, job func(tx *store.Tx) error) {
	tb.Helper()
	if err := s.Commit(context.Background(), s.Epoch(), job); err != nil {
		tb.Fatal(err)
	}
}

// Run runs the suite. uri gives a fresh, empty database each time it is called.
func Run(t *testing.T, uri func(tb testing.TB) string) {
	for _, group := range [][]check{inboxChecks, progressChecks, writerChecks, recordChecks, mediaChecks, letterChecks, replayChecks, parkedChecks, retentionChecks, keyRetentionChecks, metricChecks, foreignChecks} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) { c.run(t, &database{uri: uri(t)}) })
		}
	}
}

type check struct {
	name string
	run  func(t *testing.T, db *database)
}

// database is one database that a check opens as often as it likes.
type database struct {
	uri string
	now time.Time
}

// open opens it with a clock that the check sets: it stands still at db.now.
func (db *database) open(t *testing.T) *store.Store {
	t.Helper()
	return db.openWith(t, store.Options{})
}

func (db *database) openWith(t *testing.T, opts store.Options) *store.Store {
	t.Helper()
	if db.now.IsZero() {
		db.now = start
	}
	now := db.now
	opts.Now = func() time.Time { return now }
	return Open(t, db.uri, opts)
}

// start is when every check begins.
var start = time.Date(2026, 5, 17, 10, 30, 0, 123_000_000, time.UTC)

func ctx() context.Context { return context.Background() }

func shut(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
