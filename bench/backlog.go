package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// backlogRooms is how many rooms a backlog is spread over, in one measurement each.
var backlogRooms = []int{rooms, 2000, manyRooms}

// backlog is what waiting events cost a sink. Sizes are RSS in bytes.
type backlog struct {
	target  *target
	rooms   int
	events  int
	full    int64         // the most while it grew
	start   time.Duration // of the next process, from its start until it takes transactions
	started int64         // the most in that process's start
	work    time.Duration // until all was handled
	working int64         // the most meanwhile
	after   int64         // when it is gone and what is not used was given back
}

// measureBacklogs lets events wait in the first sink that there is, kills it, and lets another process work them off.
func (b *bench) measureBacklogs(ctx context.Context) error {
	if b.options.backlog == 0 {
		return nil
	}
	for _, t := range b.here.targets {
		if !t.sink || t.after != nil { // what after undoes must outlive a process here
			continue
		}
		for _, rooms := range backlogRooms {
			progress("a backlog of %d events in %d rooms: %s", b.options.backlog, rooms, t.name)
			k, err := b.measureBacklog(ctx, t, rooms)
			if err != nil {
				return fmt.Errorf("%s, a backlog in %d rooms: %w", t.name, rooms, err)
			}
			b.backlogs = append(b.backlogs, k)
		}
		return nil
	}
	return nil
}

func (b *bench) measureBacklog(ctx context.Context, t *target, rooms int) (_ *backlog, err error) {
	s, err := b.open(ctx, t, fmt.Sprint("backlog-", rooms), rooms, "-hold")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	k := &backlog{target: t, rooms: rooms}
	for k.events < b.options.backlog && ctx.Err() == nil {
		if err = s.conn.Send(s.g.Transaction(bigSize)); err != nil {
			return nil, err
		}
		k.events += bigSize
	}
	_, k.full = s.c.memory()
	s.c.kill()

	begin := time.Now()
	c, err := b.start(ctx, t, s.dir, "-hold") // which waits until it takes transactions
	if err != nil {
		return nil, err
	}
	s.c, k.start = c, time.Since(begin)
	_, k.started = c.memory()
	begin = time.Now()
	if err = c.post(ctx, "/release"); err != nil {
		return nil, err
	}
	if err = c.settle(ctx, k.events); err != nil {
		return nil, err
	}
	k.work = time.Since(begin)
	_, k.working = c.memory()
	if err = c.post(ctx, "/collect"); err != nil {
		return nil, err
	}
	k.after, _ = c.memory()
	return k, c.verify(ctx, k.events, k.events/bigSize)
}
