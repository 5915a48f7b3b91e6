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
	design   bool          // so much that it is the disk of the design
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
	if len(b.here.targets) == 0 {
		return
	}
	longer, err := b.longerSync(ctx)
	if err != nil {
		b.missing = append(b.missing, fmt.Sprintf("a slower disk (-sync %s): %v", b.options.sync, err))
		return
	}
	if longer == 0 {
		return
	}
	b.slower = newSeries(longer)
	b.slower.design = b.options.sync == designSync
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

const (
	// designSync is the -sync that makes the disk as fast as the one for which the design's goals of a share of fdatasync were
	// set, and designRate how fast that is: the events that the bodies of transactions of a hundred hold which it makes
	// durable in a second, one transaction after the other.
	designSync = "design"
	designRate = 218_000.0
	// calibration is how long the disk is measured to find out what is missing.
	calibration = 500 * time.Millisecond
)

// longerSync gives how much longer syncs are to take; 0 leaves the slower disk out.
func (b *bench) longerSync(ctx context.Context) (time.Duration, error) {
	if b.options.sync != designSync {
		longer, err := time.ParseDuration(b.options.sync)
		if err != nil || longer == 0 {
			return longer, err
		}
		end, err := onDisk(longer, func() error { return nil })
		if err != nil {
			return 0, err
		}
		end()
		return longer, nil
	}
	progress("measuring the disk, to make it as slow as that of the design")
	p, err := b.probeFor(ctx, time.Nanosecond, calibration) // which has in it what the asking takes
	if err != nil {
		return 0, err
	}
	return toDesign(p.big)
}

// toDesign gives how much longer the syncs of such a disk must take for it to be the design's. It goes by the median, because one sync
// that takes long must not make all others shorter.
func toDesign(bare *synced) (time.Duration, error) {
	seconds := bigSize / designRate
	wanted := time.Duration(seconds * float64(time.Second))
	longer := (wanted - bare.latency(0.5)).Round(time.Microsecond)
	if longer <= 0 {
		return 0, fmt.Errorf("a write and a sync of %d events take %s here without it, not less than the %s of the design's disk: the figures of this disk stand for it",
			bigSize, brief(milliseconds(bare.latency(0.5))), brief(milliseconds(wanted)))
	}
	return longer, nil
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
