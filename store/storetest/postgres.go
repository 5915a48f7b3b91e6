package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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
		sayNotTested.Do(func() { fmt.Fprintln(os.Stderr, notTested) })
		tb.Skip(notTested)
	}
	u := startPostgres(tb, binaries)
	return func(tb testing.TB) string { return freshDatabase(tb, u) }
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

// startPostgres runs a server on a free loopback port, with a password that nobody else knows.
func startPostgres(tb testing.TB, binaries string) *url.URL {
	tb.Helper()
	// Not tb.TempDir: the server does not run as root, and must reach its folder.
	folder, err := os.MkdirTemp("", "trestle-postgres-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(folder) })
	password := rand.Text()
	passwordFile := filepath.Join(folder, "password")
	if err = os.WriteFile(passwordFile, []byte(password+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	attributes, err := unprivileged(folder, passwordFile)
	if err != nil {
		tb.Fatalf("running PostgreSQL as a user that is not root: %v", err)
	}
	data := filepath.Join(folder, "data")
	initdb := exec.Command(filepath.Join(binaries, "initdb"), "--pgdata="+data, "--username=trestle", "--pwfile="+passwordFile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attributes, folder
	if out, err := initdb.CombinedOutput(); err != nil {
		tb.Fatalf("initdb: %v\n%s", err, out)
	}
	var output bytes.Buffer
	for range 5 {
		port := freePort(tb)
		server := exec.Command(filepath.Join(binaries, "postgres"), "-D", data, "-c", "listen_addresses=127.0.0.1",
			"-c", "port="+strconv.Itoa(port), "-c", "unix_socket_directories=", "-c", "max_connections=100")
		server.SysProcAttr, server.Dir = attributes, folder
		output.Reset()
		server.Stdout, server.Stderr = &output, &output
		if err = server.Start(); err != nil {
			tb.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = server.Wait()
			close(ended)
		}()
		u := &url.URL{Scheme: "postgres", User: url.UserPassword("trestle", password),
			Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/postgres", RawQuery: "sslmode=disable"}
		if answers(u, ended) {
			tb.Cleanup(func() {
				_ = server.Process.Signal(os.Interrupt) // fast shutdown
				<-ended
			})
			return u
		}
		_ = server.Process.Kill()
		<-ended // somebody took the port, as a rule: try another
	}
	tb.Fatalf("PostgreSQL does not start:\n%s", output.String())
	return nil
}

func freePort(tb testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// answers waits until the server takes connections; false when it ended.
func answers(u *url.URL, ended chan struct{}) bool {
	db, err := sql.Open("postgres", u.String())
	if err != nil {
		return false
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if db.PingContext(ctx) == nil {
			return true
		}
		select {
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}
