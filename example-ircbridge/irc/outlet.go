package irc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// outlet passes on to the Sink what happens on the network, in order, from one goroutine. It holds a bounded number of
// events; whoever adds more waits.
type outlet struct {
	sink    bridge.Sink
	events  chan func(ctx context.Context)
	stop    context.CancelFunc
	ctx     context.Context
	waiting atomic.Int64 // deliveries in events, and the one under way
	running sync.WaitGroup
	closing sync.Once
}

const outletSize = 256

func newOutlet(sink bridge.Sink) *outlet {
	o := &outlet{sink: sink, events: make(chan func(context.Context), outletSize)}
	o.ctx, o.stop = context.WithCancel(context.Background())
	o.running.Go(func() {
		defer o.stop()
		for event := range o.events {
			event(o.ctx)
		}
	})
	return o
}

// close lets the goroutine end when everything is delivered. Nothing may be added after it.
func (o *outlet) close() { o.closing.Do(func() { close(o.events) }) }

// abandon gives up what is not delivered yet, and says how much that is.
func (o *outlet) abandon() int {
	left := int(o.waiting.Load())
	o.stop()
	return left
}

// deliver hands an event to the Sink until the Sink has it.
func (o *outlet) deliver(in *bridge.Incoming) {
	o.waiting.Add(1)
	o.events <- func(ctx context.Context) {
		defer o.waiting.Add(-1)
		wait := backoff{first: 100 * time.Millisecond, max: 30 * time.Second}
		for ctx.Err() == nil {
			err := o.sink.Deliver(ctx, in)
			if err == nil || errors.Is(err, bridge.ErrNoPortal) {
				return
			}
			timer := time.NewTimer(wait.next())
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
	}
}

func (o *outlet) warn(channel, text string) {
	o.events <- func(context.Context) { o.sink.Warn(channel, text) }
}

func (o *outlet) online() {
	o.events <- func(context.Context) { o.sink.Online() }
}

// typing may be lost: it never waits.
func (o *outlet) typing(channel string, user bridge.RemoteUser, typing bool) {
	select {
	case o.events <- func(context.Context) { o.sink.Typing(channel, user, typing) }:
	default:
	}
}
