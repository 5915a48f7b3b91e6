package bridge

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

// This file sees to it that an outbox row that ends the process does not do so for ever, as appservice does for events.
// After three starts that did not end well the rows that wait at the head of their lanes are tried one at a time, each
// with a mark before. A mark that is found at a start counts against its row.

const (
	maxRowCrashes = 3 // processes in a row that may end over a row that was alone under way
	maxRowPanics  = 5
	// rowCrash is the cause of an attempt that the end of the process ended.
	rowCrash = "the process ended while this was being carried out; in a row: %d"
)

// carefulOutbox is what is left of the careful replay. The zero value has nothing left.
type carefulOutbox struct {
	turn   chan struct{} // has one who carries a row out, as long as heads are left
	mu     sync.Mutex
	heads  map[string]struct{} // lanes whose head was not tried
	marked map[int64]struct{}  // rows that this process has marked
}

// begin is called before the outbox's start.
func (c *carefulOutbox) begin(lanes map[string]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads, c.marked, c.turn = lanes, map[int64]struct{}{}, make(chan struct{}, 1)
}

// waits says whether there is anything left to try, and whether that is the head of this lane.
func (c *carefulOutbox) waits(lane string) (careful, head bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, head = c.heads[lane]
	return len(c.heads) > 0, head
}

// tried says whether that was the last.
func (c *carefulOutbox) tried(lane string) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.heads[lane]; !ok {
		return false
	}
	delete(c.heads, lane)
	return len(c.heads) == 0
}

func (c *carefulOutbox) mark(row int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marked[row] = struct{}{}
}

// isOwn says whether a row's mark is this process's.
func (c *carefulOutbox) isOwn(row int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.marked[row]
	return ok
}

// unmark takes this process's mark off a row, when the bridge stops in the middle.
func (c *carefulOutbox) unmark(ctx context.Context, b *Bridge, row *store.Outgoing) {
	if !c.isOwn(row.ID) {
		return
	}
	err := b.store.Commit(context.WithoutCancel(ctx), b.store.Epoch(), func(tx *store.Tx) error {
		return tx.OutgoingAttempt(row.ID, "the bridge stopped meanwhile", row.NextAt)
	})
	if err != nil {
		b.log.Error().Err(err).Int64("row", row.ID).Msg("Cannot take the mark off an outbox row")
	}
}

// startOutbox lets the outbox's workers run. waiting are the lanes that have rows from before. When these are to be tried with
// care the events come first: nothing else may be under way while one of them is.
func (b *Bridge) startOutbox(waiting map[string]struct{}) {
	events := b.as.Careful()
	if events == nil {
		b.outbox.Start(b.running)
		b.movers.Start(b.running)
		return
	}
	if len(waiting) > 0 {
		b.log.Warn().Int("lanes", len(waiting)).Msg("The last starts did not end well: what waits for Matrix is tried with care, one thing at a time")
		b.careful.begin(waiting)
		b.outbox.Limit(1)
		b.movers.Limit(1)
	}
	b.goroutine(func() {
		select {
		case <-events:
			b.outbox.Start(b.running)
			b.movers.Start(b.running)
		case <-b.running.Done():
		}
	})
}

// carryOut is the outbox lanes' work.
func (b *Bridge) carryOut(ctx context.Context, lane string, rowID int64) (done int, retryAfter time.Duration) {
	retryAfter, over, handed := b.carryOne(ctx, lane, rowID)
	switch {
	case handed:
		return lanes.Pending, 0
	case over:
		b.comings.over(lane, rowID)
		return 1, 0
	}
	return 0, retryAfter
}

// carryOne says after how long to try the same row again, or that it is over, or handed to who commits what became of it.
func (b *Bridge) carryOne(ctx context.Context, lane string, rowID int64) (retryAfter time.Duration, over, handed bool) {
	alone, careful := b.careful.waits(lane)
	if alone {
		select {
		case b.careful.turn <- struct{}{}:
			defer func() { <-b.careful.turn }()
		case <-ctx.Done():
			return retryDelay(0), false, false
		}
	}
	if careful {
		defer func() {
			if b.careful.tried(lane) {
				b.outbox.Limit(outboxWorkers)
				b.movers.Limit(comingWorkers)
				b.log.Info().Msg("What waited for Matrix at the start was tried with care, and goes on as usual")
			}
		}()
	}
	fresh, ok := b.fresh.take(rowID)
	var err error
	if !ok {
		fresh.row, err = b.store.Outgoing(ctx, rowID)
	}
	row := fresh.row
	if errors.Is(err, store.ErrNotFound) {
		b.unanswered.gone(rowID)
		if b.toMatrix.is(lane, rowID) {
			b.arrived(lane)
		}
		return 0, true, false
	}
	if err != nil {
		b.log.Error().Err(err).Int64("row", rowID).Msg("Cannot read an outbox row; trying again")
		return retryDelay(0), false, false
	}
	if wait := time.Until(row.NextAt); wait > 0 {
		return wait, false, false
	}
	crashes, counted := rowCrashes(row), false
	if row.Doubt && !b.careful.isOwn(rowID) {
		crashes, counted = crashes+1, true
	}
	if careful || counted {
		err := b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
			if counted {
				if err := tx.OutgoingAttempt(rowID, fmt.Sprintf(rowCrash, crashes), row.NextAt); err != nil {
					return err
				}
			}
			if careful {
				return tx.OutgoingDoubt(rowID)
			}
			return nil
		})
		if err != nil {
			b.failIfLost(err)
			b.log.Error().Err(err).Int64("row", rowID).Msg("Cannot mark an outbox row; trying again")
			return retryDelay(0), false, false
		}
		if counted {
			row.Attempts++
		}
		if careful {
			b.careful.mark(rowID)
		}
	}
	c, err := b.carry(ctx, lane, fresh, crashes)
	switch {
	case err != nil:
		retryAfter, over = b.notDone(c, err)
	case alone:
		retryAfter, over = b.recorded(c, b.store.Commit(ctx, b.store.Epoch(), c.record))
	default:
		b.hand(c)
		return 0, false, true
	}
	return retryAfter, over, false
}

func rowCrashes(row *store.Outgoing) (n int) {
	if _, err := fmt.Sscanf(row.Cause, rowCrash, &n); err != nil {
		return 0
	}
	return n
}

// panicked is what a panic is turned into.
type panicked struct{ value any }

func (p panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// try does what a row wants, unless process after process has ended over it, and survives a panic.
func (b *Bridge) try(ctx context.Context, row *store.Outgoing, o *outgoing, crashes int) (commit func(tx *store.Tx) error, err error) {
	if crashes >= maxRowCrashes {
		return nil, appservice.Permanent(fmt.Errorf(rowCrash, crashes))
	}
	defer func() {
		if v := recover(); v != nil {
			b.log.Error().Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Int64("row", row.ID).Msg("An outbox row panicked")
			if commit, err = nil, error(panicked{v}); row.Attempts+1 >= maxRowPanics {
				err = appservice.Permanent(err)
			}
		}
	}()
	return b.do(ctx, row, o)
}
