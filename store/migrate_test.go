package store_test

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// testdata/first.sql is a database as the first schema had it, with the rows of writeSample. It is never changed: every
// later version must open it and find the rows.
func TestOpen_DatabaseOfTheFirstSchema_IsBroughtUpToDate(t *testing.T) {
	script, err := os.ReadFile("testdata/first.sql")
	if err != nil {
		t.Fatal(err)
	}
	uri := storetest.SQLite(t)
	db, err := sql.Open(store.SQLiteDriver, store.SQLiteDSN(strings.TrimPrefix(uri, "sqlite:"), false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = db.Exec(string(script)); err != nil {
		t.Fatal(err)
	}
	if err = db.Close(); err != nil {
		t.Fatal(err)
	}
	if err = readSampleStore(uri); err != nil {
		t.Error(err)
	}
}

func TestOpen_DatabaseOfALaterSchema_IsRefused(t *testing.T) {
	uri := storetest.SQLite(t)
	s := storetest.Open(t, uri, store.Options{})
	store.Pragma(t, s, "UPDATE trestle_version SET version = 1000, compat = 1000")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(context.Background(), uri, store.Options{}); err == nil {
		t.Error("a database of a later version was opened")
	}
}
