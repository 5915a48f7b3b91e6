package store_test

import (
	"context"
	"fmt"
	"testing"

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
