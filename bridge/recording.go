package bridge

import (
	"context"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

// This file commits what became of rows. Workers do not wait for that: they hand over what the homeserver has answered and go on
// with another lane, while the row's own waits. What has gathered meanwhile shares the next commit. As long as the workers have
// other lanes to see to, nobody is in a hurry for that, and it takes more together.

// carried is a row that was done on Matrix and is still in the store.
type carried struct {
	ctx    context.Context
	lane   string
	row    *store.Outgoing
	o      *outgoing
	commit func(tx *store.Tx) error
}

func (c *carried) record(tx *store.Tx) error {
	if c.commit != nil {
		if err := c.commit(tx); err != nil {
			return err
		}
	}
	return tx.OutgoingDone(c.row.ID)
}

// recording is what waits to be committed: one of a lane, so never more than lanes.
type recording struct {
	mu      sync.Mutex
	waiting []*carried
	running bool // somebody commits
}

// hand hands a row over. Its lane's [lanes.Lanes.Finish] follows.
func (b *Bridge) hand(c *carried) {
	b.recording.mu.Lock()
	b.recording.waiting = append(b.recording.waiting, c)
	begin := !b.recording.running
	b.recording.running = true
	b.recording.mu.Unlock()
	if begin && !b.goroutine(b.record) {
		b.record()
	}
}

// record runs as long as something waits.
func (b *Bridge) record() {
	for {
		b.recording.mu.Lock()
		list := b.recording.waiting
		b.recording.waiting = nil
		b.recording.running = len(list) > 0
		b.recording.mu.Unlock()
		if len(list) == 0 {
			return
		}
		b.recordTogether(list)
	}
}

func (b *Bridge) recordTogether(list []*carried) {
	commit := b.store.Commit
	if b.outbox.Busy() {
		commit = b.store.CommitSoon
	}
	err := commit(list[0].ctx, b.store.Epoch(), func(tx *store.Tx) error {
		for _, c := range list {
			if err := c.record(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range list {
		if err != nil && len(list) > 1 { // whoever is the cause must not harm the others
			err := b.store.Commit(c.ctx, b.store.Epoch(), c.record)
			b.finish(c, err)
			continue
		}
		b.finish(c, err)
	}
}

// finish lets a row's lane go on.
func (b *Bridge) finish(c *carried, err error) {
	retryAfter, done := b.recorded(c, err)
	of := b.outbox
	if _, ghost, _ := ofLane(c.lane); ghost != "" {
		of = b.movers
	}
	outcome := lanes.Outcome{Lane: c.lane, RetryAfter: retryAfter}
	if done {
		b.comings.over(c.lane, c.row.ID)
		outcome.Done = 1
	}
	of.Finish(outcome)
}

// recorded is what follows from the outcome of a row's commit.
func (b *Bridge) recorded(c *carried, err error) (retryAfter time.Duration, done bool) {
	if err != nil {
		return b.notDone(c, notRecorded(b, err))
	}
	b.unanswered.done(c.row)
	b.metrics.attempt("done")
	b.arrived(c.row.Lane)
	return 0, true
}

// freshRows are rows that were stored just now, as far as there is room: who carries one out need not read it.
type freshRows struct {
	mu   sync.Mutex
	rows map[int64]freshRow
	size int
}

type freshRow struct {
	row *store.Outgoing
	o   *outgoing
}

const (
	maxFresh     = 8 << 20 // bytes, of all
	maxFreshSize = 8 << 10 // of one
)

// size is about what a row takes: the payload is there twice, encoded and not.
func (f *freshRow) size() int { return 1<<10 + 2*len(f.row.Payload) }

func (f *freshRows) put(row *store.Outgoing, o *outgoing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := freshRow{row, o}
	if f.size+fresh.size() > maxFresh || len(row.Payload) > maxFreshSize {
		return
	}
	if f.rows == nil {
		f.rows = map[int64]freshRow{}
	}
	f.rows[row.ID] = fresh
	f.size += fresh.size()
}

// take gives a row once: whoever tries it again reads what the store has.
func (f *freshRows) take(id int64) (freshRow, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh, ok := f.rows[id]
	if ok {
		delete(f.rows, id)
		f.size -= fresh.size()
	}
	return fresh, ok
}
