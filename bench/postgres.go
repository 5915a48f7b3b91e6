package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"
)

// postgres is a server on which every run gets a database of its own.
type postgres struct {
	uri    url.URL
	server *exec.Cmd // nil when it is not ours
	ended  chan struct{}
	longer time.Duration // that its syncs take
}

// postgresVariable names the environment variable with the URI of a server that is there already.
const postgresVariable = "TRESTLE_TEST_POSTGRES"

// startPostgres starts a private server from the installed binaries, its data under dir.
func startPostgres(ctx context.Context, dir string) (*postgres, error) {
	if given := os.Getenv(postgresVariable); given != "" {
		uri, err := url.Parse(given)
		if err != nil || uri.Host == "" {
			return nil, errors.New(postgresVariable + " is not a URI such as postgres://user@localhost:5432/postgres")
		}
		p := &postgres{uri: *uri}
		return p, p.reachable(ctx)
	}
	return privatePostgres(ctx, dir, "postgres", 0)
}

// onSlower starts another server like this one, whose syncs take so much longer.
func (p *postgres) onSlower(ctx context.Context, dir string, longer time.Duration) (*postgres, error) {
	if p.server == nil {
		return nil, errors.New("the server of " + postgresVariable + " is not started here, and its disk is what it is")
	}
	return privatePostgres(ctx, dir, "postgres-slower", longer)
}

// privatePostgres starts a server with its data in dir/name, whose syncs take so much longer.
func privatePostgres(ctx context.Context, dir, name string, longer time.Duration) (*postgres, error) {
	bin, err := postgresFolder()
	if err != nil {
		return nil, err
	}
	progress("starting a private PostgreSQL from %s", bin)
	home, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	if err = os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	as, err := unprivileged(home, dir)
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	secret := filepath.Join(home, "password")
	if err = os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return nil, err
	}
	if err = as.own(secret); err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata="+data, "--username=bench", "--pwfile="+secret,
		"--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync")
	as.apply(initdb)
	initdb.Dir = home
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, lastLine(out))
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", fmt.Sprint(port),
		"-c", "unix_socket_directories=", "-c", "max_wal_size=1GB")
	as.apply(server)
	server.Dir = home
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	endDisk, err := onDisk(longer, server.Start) // its processes are on the same disk
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	p := &postgres{server: server, ended: make(chan struct{}), longer: longer, uri: url.URL{
		Scheme: "postgres", User: url.UserPassword("bench", password), Host: fmt.Sprintf("127.0.0.1:%d", port),
		Path: "/postgres", RawQuery: "sslmode=disable",
	}}
	go func() {
		_ = server.Wait()
		endDisk()
		close(p.ended)
	}()
	if err = p.reachable(ctx); err != nil {
		p.stop()
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w; its log ends: %s", err, lastLine(text))
	}
	return p, nil
}

// postgresFolder finds initdb and postgres, the newest where there are several.
func postgresFolder() (string, error) {
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(folders)
	if initdb, err := exec.LookPath("initdb"); err == nil {
		folders = append([]string{filepath.Dir(initdb)}, folders...)
	}
	for _, folder := range folders {
		_, errInit := os.Stat(filepath.Join(folder, "initdb"))
		_, errServer := os.Stat(filepath.Join(folder, "postgres"))
		if errInit == nil && errServer == nil {
			return folder, nil
		}
	}
	return "", errors.New("it is not installed (no initdb), and " + postgresVariable + " names no server")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

func (p *postgres) database(name string) string {
	uri := p.uri
	uri.Path = "/" + name
	return uri.String()
}

func (p *postgres) exec(ctx context.Context, query string) error {
	db, err := sql.Open("postgres", p.uri.String())
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, query)
	return err
}

func (p *postgres) reachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	for {
		err := p.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		if p.server == nil {
			return fmt.Errorf("the server of %s: %w", postgresVariable, err)
		}
		select {
		case <-p.ended:
			return errors.New("postgres ended at its start")
		case <-ctx.Done():
			return fmt.Errorf("postgres cannot be reached: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func databaseName(run string) string {
	return fmt.Sprintf("trestle_bench_%d_%s", os.Getpid(), strings.ReplaceAll(run, "-", "_"))
}

// create makes the database of a run and gives its URI.
func (p *postgres) create(run string) (string, error) {
	name := databaseName(run)
	if err := p.exec(context.Background(), "CREATE DATABASE "+pq.QuoteIdentifier(name)); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	return p.database(name), nil
}

func (p *postgres) drop(run string) {
	if err := p.exec(context.Background(), "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(databaseName(run))); err != nil {
		progress("a database is left behind: %v", err)
	}
}

// stop ends the server, if it is ours.
func (p *postgres) stop() {
	if p.server == nil {
		return
	}
	_ = p.server.Process.Signal(os.Interrupt) // the fast shutdown
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.server.Process.Kill()
		<-p.ended
	}
}
