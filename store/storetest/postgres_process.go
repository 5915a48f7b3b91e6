package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/internal/ports"
)

// PostgresProcess is a private PostgreSQL server that a test may stop and start again. It is gone after the test.
type PostgresProcess struct {
	uri        *url.URL
	command    []string
	folder     string
	attributes *syscall.SysProcAttr

	server *exec.Cmd // nil while it is stopped
	ended  chan struct{}
}

// NewPostgres starts a server. Where PostgreSQL is not installed the test is skipped and one line says so.
func NewPostgres(tb testing.TB) *PostgresProcess {
	tb.Helper()
	binaries := findPostgres()
	if binaries == "" {
		notHere(tb)
	}
	return newPostgres(tb, binaries)
}

// newPostgres runs a server on a loopback port that is kept for it, with a password that nobody else knows.
func newPostgres(tb testing.TB, binaries string) *PostgresProcess {
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
	address, release, err := ports.Reserve()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(release)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	p := &PostgresProcess{
		uri: &url.URL{Scheme: "postgres", User: url.UserPassword("trestle", password), Host: address, Path: "/postgres", RawQuery: "sslmode=disable"},
		command: []string{filepath.Join(binaries, "postgres"), "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "port=" + port,
			"-c", "unix_socket_directories=", "-c", "max_connections=100",
			"-c", "fsync=off"}, // its processes are killed in tests, but never the machine
		folder: folder, attributes: attributes,
	}
	p.Start(tb)
	tb.Cleanup(func() { p.Stop(tb) })
	return p
}

// Fresh gives the URI of a fresh database that is gone after the test.
func (p *PostgresProcess) Fresh(tb testing.TB) string {
	tb.Helper()
	return freshDatabase(tb, p.uri)
}

// Start starts the server after Stop, at the same address, and returns when it takes connections.
func (p *PostgresProcess) Start(tb testing.TB) {
	tb.Helper()
	var output bytes.Buffer
	server := exec.Command(p.command[0], p.command[1:]...)
	server.SysProcAttr, server.Dir = p.attributes, p.folder
	server.Stdout, server.Stderr = &output, &output
	if err := server.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = server.Wait()
		close(ended)
	}()
	if !answers(p.uri, ended) {
		_ = server.Process.Kill()
		<-ended
		tb.Fatalf("PostgreSQL does not start:\n%s", output.String())
	}
	p.server, p.ended = server, ended
}

// Stop ends the server and all connections to it. Its data stays.
func (p *PostgresProcess) Stop(tb testing.TB) {
	tb.Helper()
	if p.server == nil {
		return
	}
	if err := p.server.Process.Signal(os.Interrupt); err != nil { // the fast shutdown
		tb.Errorf("stopping PostgreSQL: %v", err)
	}
	<-p.ended
	p.server = nil
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
