package appservice

import (
	"context"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// readingHold is how long a transaction waits at most for the reading of a room's history: a slow homeserver does not hold up everything.
const readingHold = 5 * time.Second

// readings are the rooms whose histories are being read. What a transaction brings of one meanwhile is newer than what is read, and comes after it.
type readings struct {
	mu    sync.Mutex
	lanes map[string]chan struct{} // closed when what was read is stored
}

// begin is ended by what it gives. One reads a room at a time.
func (r *readings) begin(lane string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lanes == nil {
		r.lanes = map[string]chan struct{}{}
	}
	done := make(chan struct{})
	r.lanes[lane] = done
	return func() {
		r.mu.Lock()
		delete(r.lanes, lane)
		r.mu.Unlock()
		close(done)
	}
}

// of gives what is closed when the history of a room of which the transaction brings something is read; nil: there is none.
func (r *readings) of(t *store.Transaction) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lanes) == 0 {
		return nil
	}
	for i := range t.Elements {
		if done := r.lanes[t.Elements[i].Lane]; done != nil {
			return done
		}
	}
	return nil
}

// wait is until none is read of which the transaction brings something.
func (r *readings) wait(ctx context.Context, t *store.Transaction) {
	ctx, cancel := context.WithTimeout(ctx, readingHold)
	defer cancel()
	for done := r.of(t); done != nil && ctx.Err() == nil; done = r.of(t) {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
}
