package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/load"
)

// bench is one run of the program.
type bench struct {
	options  *options
	dir      string
	length   time.Duration
	targets  []*target
	postgres *postgres
	missing  []string // what is not measured, and why
	seed     uint64

	measured map[string][]*measurement // by target, one for each round
	probes   []*probe
}

// measurement is one target in one round.
type measurement struct {
	idle, busy int64 // RSS in bytes; 0 where it cannot be had
	single     *load.Result
	big        *load.Result
	cpu        time.Duration // spent from the first big transaction until all its events were handled
	handling   time.Duration // of which this long after the last was acknowledged
	stats      stats         // of the big transactions
}

// round measures the disk and every target once.
func (b *bench) round(ctx context.Context, round int) error {
	progress("round %d of %d: fdatasync", round+1, b.options.rounds)
	p, err := b.probe(ctx)
	if err != nil {
		return fmt.Errorf("measure the disk: %w", err)
	}
	b.probes = append(b.probes, p)
	for i := range b.targets {
		t := b.targets[(i+round)%len(b.targets)] // nobody is always the first
		progress("round %d of %d: %s", round+1, b.options.rounds, t.name)
		m, err := b.measure(ctx, t, round)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		b.measured[t.name] = append(b.measured[t.name], m)
	}
	return nil
}

// warmUp is driven before anything is measured, so that connections, files and code are there.
const warmUp = 200 * time.Millisecond

func (b *bench) measure(ctx context.Context, t *target, round int) (_ *measurement, err error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", t.name, round))
	if err = os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := b.start(ctx, t, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stopErr := c.stop(); err == nil {
			err = stopErr
		}
	}()
	m := &measurement{}
	time.Sleep(300 * time.Millisecond)
	m.idle, _ = c.memory()

	conn, err := load.Dial(c.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	b.seed++
	g := load.NewGenerator(token, rooms, b.seed)
	sent := 0
	drive := func(events int, length time.Duration) (*load.Result, error) {
		r, err := load.Drive(ctx, conn, g, events, length)
		if err != nil {
			return nil, err
		}
		sent += r.Events
		return r, nil
	}
	if _, err = drive(bigSize, warmUp); err != nil {
		return nil, err
	}
	if err = c.settle(ctx, sent); err != nil {
		return nil, err
	}
	if m.single, err = drive(1, b.length); err != nil {
		return nil, err
	}
	if err = c.settle(ctx, sent); err != nil {
		return nil, err
	}
	statsBefore, err := c.stats(ctx)
	if err != nil {
		return nil, err
	}
	cpuBefore := c.cpu()
	endProfile := b.profile(ctx, c)
	if m.big, err = drive(bigSize, b.length); err != nil {
		return nil, err
	}
	endProfile()
	if m.stats, err = c.stats(ctx); err != nil {
		return nil, err
	}
	m.stats = m.stats.since(statsBefore)
	acknowledged := time.Now()
	if err = c.settle(ctx, sent); err != nil {
		return nil, err
	}
	m.handling = time.Since(acknowledged)
	m.cpu = c.cpu() - cpuBefore
	_, m.busy = c.memory()
	return m, c.verify(ctx, sent)
}
