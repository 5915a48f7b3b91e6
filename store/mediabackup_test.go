package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestAddMedia_AfterABackupWasPutBack_GivesNoNumberAgain(t *testing.T) {
	add := func(uri, name string) int64 {
		s, err := store.Open(t.Context(), uri, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m := store.Media{Server: "hs.test", MediaID: name, Room: "!r", Name: name}
		storetest.Commit(t, s, func(tx *store.Tx) error { return tx.AddMedia(&m) })
		if err = s.Close(); err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	uri := storetest.SQLite(t)
	before := add(uri, "before")
	data, err := os.ReadFile(strings.TrimPrefix(uri, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err = os.WriteFile(backup, data, 0o600); err != nil {
		t.Fatal(err)
	}
	lost, after := add(uri, "of a public room"), add("sqlite:"+backup, "of a private room")
	if before >= lost || lost == after {
		t.Errorf("records were numbered %d, then %d, and %d after the backup was put back", before, lost, after)
	}
}
