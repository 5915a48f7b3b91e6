package storetest

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/lib/pq" // the driver of the databases made here
)

// Postgres gives the URI of a fresh PostgreSQL database that is gone after the test. See [PostgresServer].
func Postgres(tb testing.TB) (uri string) {
	tb.Helper()
	return PostgresServer(tb)(tb)
}

// notTested is said once by a test binary that has no PostgreSQL.
const notTested = "PostgreSQL was not tested: no initdb and postgres in PATH or /usr/lib/postgresql/*/bin, and TRESTLE_TEST_POSTGRES is not set"

var sayNotTested sync.Once

// PostgresServer gives a function that makes fresh databases on one server: the one that TRESTLE_TEST_POSTGRES names by
// the URI of a user who may create databases, or a private one that runs until the test ends. Where there is neither,
// the test is skipped and one line says so.
func PostgresServer(tb testing.TB) (fresh func(tb testing.TB) string) {
	tb.Helper()
	if uri := os.Getenv("TRESTLE_TEST_POSTGRES"); uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			tb.Fatal("TRESTLE_TEST_POSTGRES is not a URI")
		}
		return func(tb testing.TB) string { return freshDatabase(tb, u) }
	}
	binaries := findPostgres()
	if binaries == "" {
		notHere(tb)
	}
	return newPostgres(tb, binaries).Fresh
}

func notHere(tb testing.TB) {
	tb.Helper()
	sayNotTested.Do(func() { fmt.Fprintln(os.Stderr, notTested) })
	tb.Skip(notTested)
}

// findPostgres gives the folder with the newest server's binaries.
func findPostgres() string {
	folders := filepath.SplitList(os.Getenv("PATH"))
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	for i := len(versions) - 1; i >= 0; i-- {
		folders = append(folders, versions[i])
	}
	for _, folder := range folders {
		if isProgram(filepath.Join(folder, "initdb")) && isProgram(filepath.Join(folder, "postgres")) {
			return folder
		}
	}
	return ""
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// freshDatabase makes a database and drops it after the test.
func freshDatabase(tb testing.TB, server *url.URL) string {
	tb.Helper()
	name := "trestle_test_" + strings.ToLower(rand.Text())
	run := func(query string) error {
		db, err := sql.Open("postgres", server.String())
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.Exec(query)
		return err
	}
	if err := run("CREATE DATABASE " + name); err != nil {
		tb.Fatalf("making a database: %v", err)
	}
	tb.Cleanup(func() {
		if err := run("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			tb.Errorf("dropping the database %s: %v", name, err)
		}
	})
	u := *server
	u.Path = "/" + name
	return u.String()
}
