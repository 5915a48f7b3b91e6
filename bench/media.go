package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	mediaConnections = 8
	mediaLength      = 500 * time.Millisecond // of one measurement of plain media; nginx has one before and one after each of the proxy
	encryptedSize    = 24 << 20               // below the size up to which all is verified before anything is sent
	largeSize        = 1 << 30
)

var mediaSizes = []int64{16 << 10, 1 << 20, 64 << 20}

func plainName(size int64) string     { return fmt.Sprintf("n%d", size) }
func encryptedName(size int64) string { return fmt.Sprintf("e%d", size) }

const downloadPath = "/_matrix/client/v1/media/download/bench/"

// mediaRow is one way to serve one size, by nginx and by the proxy.
type mediaRow struct {
	cached bool
	size   int64
	rounds []beside
}

// beside is one round: the proxy, nginx before and after it, and of cached media a handler of net/http that does nothing but write.
type beside struct{ proxy, nginx, bare download }

// ratio is what the proxy serves for one byte of nginx's.
func (b beside) ratio() float64 { return b.proxy.bytesPerSecond() / b.nginx.bytesPerSecond() }

// floor is what such a handler serves for one byte of nginx's; NaN where there is none.
func (b beside) floor() float64 { return b.bare.bytesPerSecond() / b.nginx.bytesPerSecond() }

// cpu is what a byte costs the proxy for what it costs nginx.
func (b beside) cpu() float64 {
	return float64(b.proxy.cpu) / float64(b.proxy.bytes) / (float64(b.nginx.cpu) / float64(b.nginx.bytes))
}

// mediaBench is the part of a run that measures the media proxy.
type mediaBench struct {
	*bench
	program         string
	upstream        *child
	behind          *child // the upstream of the proxy with a cache, which should not be asked
	nginx           *child // nil: there is none
	direct, disk    *child // the proxy, without a cache and with one
	links           map[string]string
	rows            []*mediaRow
	secret          []secret
	growth          []growth
	linkRatio       float64
	idle            map[*child]int64 // memory of a proxy that has just begun, in bytes
	missing         string           // what is not measured, and why
	linkNanoseconds float64
}

// measureProxy measures the media proxy beside nginx and reports.
func (b *bench) measureProxy(ctx context.Context, w io.Writer) (err error) {
	m := &mediaBench{bench: b, links: make(map[string]string), idle: make(map[*child]int64)}
	if m.program, err = b.build(ctx, "media"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err = m.open(ctx); err != nil {
		return err
	}
	for round := range b.options.rounds {
		progress("round %d of %d: the media proxy", round+1, b.options.rounds)
		if m.nginx != nil {
			if err = m.plain(ctx); err != nil {
				return err
			}
		}
		if err = m.encrypted(ctx, round); err != nil {
			return err
		}
	}
	if err = m.large(ctx); err != nil {
		return err
	}
	if err = m.linkCheck(ctx); err != nil {
		return err
	}
	m.report(w)
	return nil
}

func (m *mediaBench) open(ctx context.Context) (err error) {
	upstream := &target{name: "the upstream", binary: m.program}
	for _, c := range []**child{&m.upstream, &m.behind} {
		if *c, err = launch(upstream, m.dir, []string{"-upstream"}); err != nil {
			return err
		}
	}
	program, err := findNginx()
	if err == nil {
		m.nginx, err = m.startNginx(ctx, program, m.upstream.addr, mediaSizes)
	}
	if err != nil {
		m.missing = "plain media beside nginx: " + err.Error()
	}
	if m.direct, err = m.startProxy("direct", m.upstream, false); err != nil {
		return err
	}
	if m.disk, err = m.startProxy("disk", m.behind, true); err != nil {
		return err
	}
	for _, size := range mediaSizes {
		m.rows = append(m.rows, &mediaRow{cached: false, size: size}, &mediaRow{cached: true, size: size})
	}
	return nil
}

func (m *mediaBench) close() error {
	var errs []error
	for _, c := range []*child{m.nginx, m.direct, m.disk, m.upstream, m.behind} {
		if c != nil {
			if err := c.stop(); err != nil {
				errs = append(errs, fmt.Errorf("end %s: %w", c.target.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// startProxy starts a process of the proxy and learns its links.
func (m *mediaBench) startProxy(name string, upstream *child, cached bool) (*child, error) {
	dir, err := filepath.Abs(filepath.Join(m.dir, "proxy-"+name))
	if err != nil {
		return nil, err
	}
	if err = os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	files := []string{encryptedName(encryptedSize), plainName(largeSize)}
	for _, size := range mediaSizes {
		files = append(files, plainName(size))
	}
	links := filepath.Join(dir, "links.json")
	args := []string{
		"-homeserver", "http://" + upstream.addr, "-db", filepath.Join(dir, "bridge.db"), "-links", links, "-files", strings.Join(files, ","),
	}
	if cached {
		args = append(args, "-cache", filepath.Join(dir, "cache"))
	}
	if m.options.profile != "" {
		args = append(args, "-profile", filepath.Join(m.options.profile, "proxy-"+name+".pprof"))
	}
	c, err := launch(&target{name: "the proxy (" + name + ")", binary: m.program}, dir, args)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(links)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	var paths map[string]string
	if err = json.Unmarshal(text, &paths); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	for file, path := range paths {
		m.links[c.dir+" "+file] = path
	}
	m.idle[c], _ = c.memory()
	return c, nil
}

// link is the path of a file at a process of the proxy.
func (m *mediaBench) link(c *child, file string) string { return m.links[c.dir+" "+file] }

// plain measures every size once, uncached and cached.
func (m *mediaBench) plain(ctx context.Context) error {
	for _, row := range m.rows {
		name := plainName(row.size)
		proxy, path := m.direct, downloadPath+name
		if row.cached {
			proxy, path = m.disk, "/files/"+name
			if err := m.keep(ctx, name, row.size); err != nil {
				return err
			}
		}
		before, err := m.behind.asked(ctx)
		if err != nil {
			return err
		}
		r := beside{}
		for _, side := range []struct {
			c    *child
			path string
			into *download
		}{{m.nginx, path, &r.nginx}, {proxy, m.link(proxy, name), &r.proxy}, {proxy, m.link(proxy, name), &r.proxy}, {m.nginx, path, &r.nginx}} {
			d, err := readers(ctx, side.c, side.path, row.size, mediaConnections, mediaLength)
			if err != nil {
				return err
			}
			side.into.bytes += d.bytes
			side.into.elapsed += d.elapsed
			side.into.cpu += d.cpu
		}
		if row.cached {
			if r.bare, err = readers(ctx, m.upstream, downloadPath+name, row.size, mediaConnections, mediaLength); err != nil {
				return err
			}
		}
		row.rounds = append(row.rounds, r)
		after, err := m.behind.asked(ctx)
		if err != nil {
			return err
		}
		if row.cached && after != before {
			return fmt.Errorf("%d bytes from the cache: the upstream was asked %d times", row.size, after-before)
		}
	}
	return nil
}

// keep has the proxy fetch a file, and waits until its cache has it.
func (m *mediaBench) keep(ctx context.Context, name string, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	for {
		before, err := m.behind.asked(ctx)
		if err != nil {
			return err
		}
		if _, err = once(ctx, m.disk, m.link(m.disk, name), size); err != nil {
			return err
		}
		after, err := m.behind.asked(ctx)
		if err != nil {
			return err
		}
		if after == before {
			// Followers of a fetch ask nobody either: the file is there when it has its name.
			if kept, err := filepath.Glob(filepath.Join(m.disk.dir, "cache", "partial-*")); err != nil || len(kept) == 0 {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not kept in the cache: %w", name, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
