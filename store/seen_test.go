package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestSeen_HashesOfForgottenKeys_LeaveTheDatabase(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { hashesLeave(t, storetest.SQLite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { hashesLeave(t, storetest.Postgres(t)) })
}

func hashesLeave(t *testing.T, uri string) {
	// A row is one transaction; those that are forgotten go some at a time, which leaves a few more.
	const remembered, some = 100, 90
	opts := store.Options{SeenEvents: remembered}
	s := storetest.Open(t, uri, opts)
	next := 0
	for round := range 3 {
		for range 50 {
			storetest.Commit(t, s, func(tx *store.Tx) error {
				for range 10 {
					next++
					id := fmt.Sprint("$", next)
					tr := &store.Transaction{Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: id, Raw: []byte(id)}}}
					if _, err := tx.Ingest(tr); err != nil {
						return err
					}
				}
				return nil
			})
		}
		var rows int
		if err := store.Reader(s).QueryRowContext(context.Background(), "SELECT COUNT(*) FROM seen").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if rows < remembered || rows > remembered+some {
			t.Errorf("after %d transactions the hashes of %d are stored, want %d to %d", next, rows, remembered, remembered+some)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if round < 2 {
			s = storetest.Open(t, uri, opts)
		}
	}
}

func TestSeen_MoreCameThanIsRemembered_SinceWhenAllIsRememberedIsKnown(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { sinceWhen(t, storetest.SQLite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { sinceWhen(t, storetest.Postgres(t)) })
}

func sinceWhen(t *testing.T, uri string) {
	opts, start := store.Options{SeenEvents: 10}, time.UnixMilli(1_796_000_000_000)
	s := storetest.Open(t, uri, opts)
	n := 0
	come := func(want time.Time) {
		t.Helper()
		storetest.Commit(t, s, func(tx *store.Tx) error {
			n++
			_, err := tx.Ingest(&store.Transaction{
				Received: start.Add(time.Duration(n) * time.Hour), Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: fmt.Sprint("$", n), Raw: []byte("{}")}},
			})
			return err
		})
		for range 2 {
			storetest.Commit(t, s, func(tx *store.Tx) error {
				if since := tx.RememberedSince(); !since.Equal(want) {
					t.Errorf("after %d all is remembered since %v, want %v", n, since, want)
				}
				return nil
			})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = storetest.Open(t, uri, opts)
		}
	}
	for n < 9 {
		come(time.Time{})
	}
	for n < 15 { // of the oldest that is remembered, and what was taken in when it was, nobody knows whether something is missing
		come(start.Add(time.Duration(n+1-9)*time.Hour + time.Minute))
	}
}
