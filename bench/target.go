package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// target is a program to measure.
type target struct {
	name   string // as in -only
	title  string
	sink   bool
	keeps  bool // it keeps bodies, and does not look into them
	binary string
	args   func(dir string) ([]string, error)
	after  func(dir string) // undoes what args did, when the program has ended
	server *postgres        // nil when it needs none
	longer time.Duration    // that its syncs take
}

const module = "github.com/trestle-bridge/trestle"

// prepare builds the programs and finds out what can be measured here.
func (b *bench) prepare(ctx context.Context) error {
	o := b.options
	if o.wants("peer-async") || o.wants("peer-sync") {
		peer, err := b.build(ctx, "peer")
		if err != nil {
			return err
		}
		for _, mode := range []string{"async", "sync"} {
			if name := "peer-" + mode; o.wants(name) {
				b.add(&target{name: name, title: "mautrix-go, " + mode, binary: peer, args: func(string) ([]string, error) {
					return []string{"-mode", mode}, nil
				}})
			}
		}
	}
	if o.wants("file") {
		file, err := b.build(ctx, "file")
		if err != nil {
			return err
		}
		b.add(&target{name: "file", title: "a file, over HTTP", keeps: true, binary: file, args: func(dir string) ([]string, error) {
			return []string{"-file", filepath.Join(dir, "bodies")}, nil
		}})
	}
	onFile := func(dir string) ([]string, error) { return []string{"-db", filepath.Join(dir, "sink.db")}, nil }
	byDefault := ""
	if o.wants("sqlite") || o.wants("postgres") {
		var err error
		if byDefault, err = b.build(ctx, "sink"); err != nil {
			return err
		}
	}
	cgo := byDefault != "" && usesCgo(byDefault)
	switch {
	case !o.wants("sqlite"):
	case cgo:
		b.add(&target{name: "sqlite", title: "SQLite (mattn)", sink: true, binary: byDefault, args: onFile})
	default:
		b.missing = append(b.missing, "SQLite with mattn/go-sqlite3: there is no C compiler, or CGO_ENABLED=0 is set")
	}
	if o.wants("modernc") {
		pure, err := b.build(ctx, "sink", "CGO_ENABLED=0")
		if err != nil {
			return err
		}
		b.add(&target{name: "modernc", title: "SQLite (modernc)", sink: true, binary: pure, args: onFile})
	}
	if o.wants("postgres") {
		p, err := startPostgres(ctx, b.dir)
		if err != nil {
			b.missing = append(b.missing, "PostgreSQL: "+err.Error())
		} else {
			b.add(b.onPostgres(p, byDefault))
		}
	}
	b.prepareSlower(ctx)
	return nil
}

func (b *bench) add(t *target) { b.here.targets = append(b.here.targets, t) }

// onPostgres makes the target of a server, which close stops. The sink itself syncs nothing then.
func (b *bench) onPostgres(p *postgres, sink string) *target {
	b.servers = append(b.servers, p)
	return &target{
		name: "postgres", title: "PostgreSQL (lib/pq)", sink: true, binary: sink, server: p, longer: p.longer,
		args: func(dir string) ([]string, error) {
			uri, err := p.create(filepath.Base(dir))
			return []string{"-db", uri}, err
		},
		after: func(dir string) { p.drop(filepath.Base(dir)) },
	}
}

func (b *bench) close() {
	for _, p := range b.servers {
		p.stop()
	}
}

// build compiles bench/NAME into the data folder.
func (b *bench) build(ctx context.Context, name string, env ...string) (string, error) {
	progress("building bench/%s %s", name, env)
	out, err := filepath.Abs(filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, len(env))))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, module+"/bench/"+name)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	if err = cmd.Run(); err != nil {
		return "", fmt.Errorf("build bench/%s: %w", name, err)
	}
	return out, nil
}

// usesCgo asks the binary itself, because the toolchain decides by what it finds.
func usesCgo(binary string) bool {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" {
			return s.Value == "1"
		}
	}
	return false
}
