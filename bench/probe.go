package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/load"
)

const tmpfs = "tmpfs"

// probe is what the disk allows: the bodies of the same transactions, each written to a preallocated file and made
// durable before the next.
type probe struct {
	single, big *synced
}

// synced is one run of writes.
type synced struct {
	events    int
	elapsed   time.Duration
	latencies []time.Duration // in ascending order
}

func (s *synced) eventsPerSecond() float64 { return float64(s.events) / s.elapsed.Seconds() }

func (s *synced) latency(quantile float64) time.Duration { return load.Quantile(s.latencies, quantile) }

// probeSize is what is preallocated; the writes go round in it.
const probeSize = 64 << 20

func (b *bench) probe(ctx context.Context, longer time.Duration) (*probe, error) {
	return b.probeFor(ctx, longer, b.length)
}

func (b *bench) probeFor(ctx context.Context, longer, length time.Duration) (_ *probe, err error) {
	path := filepath.Join(b.dir, "probe")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for range probeSize / len(zeros) {
		if _, err = f.Write(zeros); err != nil {
			return nil, err
		}
	}
	if err = f.Sync(); err != nil {
		return nil, err
	}
	p := &probe{}
	b.seed++
	g := load.NewGenerator(token, rooms, b.seed)
	end, err := onDisk(longer, func() (err error) {
		if p.single, err = syncs(ctx, f, g, 1, length); err == nil {
			p.big, err = syncs(ctx, f, g, bigSize, length)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	end()
	return p, nil
}

func syncs(ctx context.Context, f *os.File, g *load.Generator, events int, length time.Duration) (*synced, error) {
	s := &synced{}
	at := int64(0)
	begin := time.Now()
	last := begin
	for last.Sub(begin) < length {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		body := g.Transaction(events).Body()
		if at+int64(len(body)) > probeSize {
			at = 0
		}
		last = time.Now()
		if _, err := f.WriteAt(body, at); err != nil {
			return nil, err
		}
		if err := datasync(f); err != nil {
			return nil, err
		}
		now := time.Now()
		s.latencies = append(s.latencies, now.Sub(last))
		s.events += events
		at += int64(len(body))
		last = now
	}
	s.elapsed = last.Sub(begin)
	slices.Sort(s.latencies)
	return s, nil
}
