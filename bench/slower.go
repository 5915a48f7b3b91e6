package main

import (
	"context"
	"fmt"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/slowdisk"
)

// series is what was measured on one disk, in each round once: the disk itself, and the targets.
type series struct {
	longer   time.Duration // that a sync takes than it would; 0 on the disk as it is
	targets  []*target
	probes   []*probe
	measured map[string][]*measurement // by target
}

func newSeries(longer time.Duration) *series {
	return &series{longer: longer, measured: map[string][]*measurement{}}
}

// disks are those that something is measured on.
func (b *bench) disks() []*series {
	if b.slower == nil {
		return []*series{b.here}
	}
	return []*series{b.here, b.slower}
}

// measureOn measures a disk and every target on it once.
func (b *bench) measureOn(ctx context.Context, s *series, round int) error {
	on := ""
	if s.longer > 0 {
		on = fmt.Sprintf(", syncs %s longer", s.longer)
	}
	progress("round %d of %d: fdatasync%s", round+1, b.options.rounds, on)
	p, err := b.probe(ctx, s.longer)
	if err != nil {
		return fmt.Errorf("measure the disk%s: %w", on, err)
	}
	s.probes = append(s.probes, p)
	for i := range s.targets {
		t := s.targets[(i+round)%len(s.targets)] // nobody is always the first
		progress("round %d of %d: %s%s", round+1, b.options.rounds, t.name, on)
		m, err := b.measure(ctx, t, round)
		if err != nil {
			return fmt.Errorf("%s%s: %w", t.name, on, err)
		}
		s.measured[t.name] = append(s.measured[t.name], m)
	}
	return nil
}

// prepareSlower makes the slower disk's targets of those that sync anything.
func (b *bench) prepareSlower(ctx context.Context) {
	longer := b.options.sync
	if longer == 0 || len(b.here.targets) == 0 {
		return
	}
	end, err := onDisk(longer, func() error { return nil })
	if err != nil {
		b.missing = append(b.missing, fmt.Sprintf("a disk whose syncs take %s longer: %v", longer, err))
		return
	}
	end()
	b.slower = newSeries(longer)
	for _, t := range b.here.targets {
		switch {
		case t.server != nil:
			p, err := t.server.onSlower(ctx, b.dir, longer)
			if err != nil {
				b.missing = append(b.missing, fmt.Sprintf("PostgreSQL with syncs that take %s longer: %v", longer, err))
				continue
			}
			b.slower.targets = append(b.slower.targets, b.onPostgres(p, t.binary))
		case t.sink || t.keeps:
			same := *t
			same.longer = longer
			b.slower.targets = append(b.slower.targets, &same)
		}
	}
	if len(b.slower.targets) == 0 {
		b.slower = nil
	}
}

// onDisk runs begin, which may start a program, where syncs take so much longer. end comes when the program has ended.
func onDisk(longer time.Duration, begin func() error) (end func(), err error) {
	if longer == 0 {
		return func() {}, begin()
	}
	d, err := slowdisk.Start(longer, begin)
	if err != nil {
		return nil, err
	}
	return d.Close, nil
}
