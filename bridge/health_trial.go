package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// writeTimeout is for a commit that is made only to see whether one can be made.
const writeTimeout = 3 * time.Second

// trial is something that is tried now and then, once at a time, and not waited for beyond patience. Whoever asks while
// one is under way gets what becomes of that.
type trial struct {
	patience time.Duration

	mu    sync.Mutex
	ended chan struct{} // closed when the one under way has ended; nil: none is
	err   error         // of the last one
}

var errStopping = errors.New("the bridge is stopping")

func (t *trial) run(ctx context.Context, spawn func(func()) bool, try func() error) error {
	t.mu.Lock()
	ended := t.ended
	if ended == nil {
		ended = make(chan struct{})
		if !spawn(func() {
			err := try()
			t.mu.Lock()
			defer t.mu.Unlock()
			t.err, t.ended = err, nil
			close(ended)
		}) {
			t.mu.Unlock()
			return errStopping
		}
		t.ended = ended
	}
	t.mu.Unlock()
	timer := time.NewTimer(t.patience)
	defer timer.Stop()
	select {
	case <-ended:
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.err
	case <-timer.C:
		return fmt.Errorf("a commit has not ended within %v", t.patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}
