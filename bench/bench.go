package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/load"
)

// bench is one run of the program.
type bench struct {
	options *options
	dir     string
	length  time.Duration
	servers []*postgres
	missing []string // what is not measured, and why
	seed    uint64

	here     *series                   // the disk as it is
	slower   *series                   // nil when it is not measured
	few      map[string][]*measurement // sinks that write a row for each event, by target, with few rooms
	many     map[string][]*measurement // and with manyRooms
	backlogs []*backlog
}

// measurement is one target in one round.
type measurement struct {
	idle, busy int64 // RSS in bytes; 0 where it cannot be had
	after      int64 // when all is handled and what is not used was given back
	single     *load.Result
	big        *load.Result
	cpu        time.Duration // spent from the first big transaction until all its events were handled
	handling   time.Duration // of which this long after the last was acknowledged
	stats      stats         // of the big transactions
}

// round measures the disk, every target and what many rooms cost once, and the slower disk.
func (b *bench) round(ctx context.Context, round int) error {
	if err := b.measureOn(ctx, b.here, round); err != nil {
		return err
	}
	for _, t := range b.here.targets {
		if !t.sink {
			continue
		}
		for rooms, of := range map[int]map[string][]*measurement{rooms: b.few, manyRooms: b.many} {
			progress("round %d of %d: %s, %d rooms, a row for each event", round+1, b.options.rounds, t.name, rooms)
			m, err := b.measureRooms(ctx, t, round, rooms)
			if err != nil {
				return fmt.Errorf("%s, %d rooms: %w", t.name, rooms, err)
			}
			of[t.name] = append(of[t.name], m)
		}
	}
	if b.slower == nil {
		return nil
	}
	return b.measureOn(ctx, b.slower, round)
}

// warmUp is driven before anything is measured, so that connections, files and code are there.
const warmUp = 200 * time.Millisecond

// session is one process of a target with a homeserver that talks to it.
type session struct {
	b            *bench
	c            *child
	dir          string
	conn         *load.Conn
	g            *load.Generator
	events, sent int // sent counts transactions
}

// open starts a target. The data is gone with close.
func (b *bench) open(ctx context.Context, t *target, name string, rooms int, more ...string) (_ *session, err error) {
	s := &session{b: b, dir: filepath.Join(b.dir, "of-"+t.name+"-"+name)}
	if err = os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	if s.c, err = b.start(ctx, t, s.dir, more...); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	b.seed++
	s.g = load.NewGenerator(token, rooms, b.seed)
	if s.conn, err = load.Dial(s.c.addr); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *session) close() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	return errors.Join(s.c.stop(), os.RemoveAll(s.dir))
}

// drive sends for so long and waits until all is handled; handling is what that took after the last acknowledgement.
func (s *session) drive(ctx context.Context, events int, length time.Duration) (r *load.Result, handling time.Duration, err error) {
	if r, err = load.Drive(ctx, s.conn, s.g, events, length); err != nil {
		return nil, 0, err
	}
	acknowledged := time.Now()
	s.events, s.sent = s.events+r.Events, s.sent+r.Transactions
	err = s.c.settle(ctx, s.events)
	return r, time.Since(acknowledged), err
}

// big measures large transactions into m.
func (s *session) big(ctx context.Context, m *measurement) error {
	before, err := s.c.stats(ctx)
	if err != nil {
		return err
	}
	cpu := s.c.cpu()
	if m.big, m.handling, err = s.drive(ctx, bigSize, s.b.length); err != nil {
		return err
	}
	m.cpu = s.c.cpu() - cpu
	_, m.busy = s.c.memory()
	m.stats, err = s.c.stats(ctx)
	m.stats = m.stats.since(before)
	return err
}

func (b *bench) measure(ctx context.Context, t *target, round int) (_ *measurement, err error) {
	s, err := b.open(ctx, t, fmt.Sprint(round), rooms)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	m := &measurement{}
	time.Sleep(300 * time.Millisecond)
	m.idle, _ = s.c.memory()
	if _, _, err = s.drive(ctx, bigSize, warmUp); err != nil {
		return nil, err
	}
	if m.single, _, err = s.drive(ctx, 1, b.length); err != nil {
		return nil, err
	}
	endProfile := b.profile(ctx, s.c, "")
	defer endProfile()
	if err = s.big(ctx, m); err != nil {
		return nil, err
	}
	return m, s.c.verify(ctx, s.events, s.sent)
}

// measureRooms is large transactions over a number of rooms, to a sink that writes a row for each event, so that what is
// written does not depend on how many of them share a lane.
func (b *bench) measureRooms(ctx context.Context, t *target, round, rooms int) (_ *measurement, err error) {
	s, err := b.open(ctx, t, fmt.Sprint(rooms, "-", round), rooms, "-each")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	m := &measurement{}
	if _, _, err = s.drive(ctx, bigSize, warmUp); err != nil {
		return nil, err
	}
	endProfile := b.profile(ctx, s.c, fmt.Sprint("-", rooms))
	defer endProfile()
	if err = s.big(ctx, m); err != nil {
		return nil, err
	}
	if err = s.c.post(ctx, "/collect"); err != nil {
		return nil, err
	}
	m.after, _ = s.c.memory()
	return m, s.c.verify(ctx, s.events, s.sent)
}
