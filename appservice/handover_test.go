package appservice

import (
	"bytes"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// Only COMMIT fails here, after everything else of a transaction went well: the lanes must not have heard of it.
func TestIntake_CommitFails_HandsNothingOver(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, nil, func(c *Config) {
		c.HoldFor, c.Log = 2*time.Second, zerolog.New(zerolog.SyncWriter(&log))
	})
	driver := "sqlite3"
	if !slices.Contains(sql.Drivers(), driver) {
		driver = "sqlite"
	}
	db, err := sql.Open(driver, f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	run := func(query string) {
		t.Helper()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	run(`CREATE TABLE nobody (id INTEGER PRIMARY KEY);
		CREATE TABLE obstacle (id INTEGER REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED);
		CREATE TRIGGER obstacle AFTER INSERT ON inbox BEGIN INSERT INTO obstacle VALUES (1); END`)
	if code, _ := f.put("1", events(message("$1"))); code != 503 {
		t.Errorf("a transaction that could not be committed got %d", code)
	}
	f.idle()
	run(`DROP TRIGGER obstacle`)
	for code := 0; code != 200; { // the homeserver sends it again, until the store is there
		if code, _ = f.put("1", events(message("$1"))); code != 200 && code != 503 {
			t.Fatalf("answered %d", code)
		}
	}
	f.idle()
	if f.rec.ids() != "$1" {
		t.Errorf("handled: %q", f.rec.ids())
	}
	f.stop()
	if text := log.String(); strings.Contains(text, "no longer in the store") || !strings.Contains(text, "FOREIGN KEY") {
		t.Errorf("the log says: %s", text)
	}
}
