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
	ctx     context.Context
	stop    context.CancelFunc
	waiting atomic.Int64   // deliveries in events, and the one under way
	running sync.WaitGroup // the goroutine
	closing sync.Once
	shares  bool          // the goroutine is another outlet's
	given   chan struct{} // of a share: closed when what it still wants to add is given up
	giving  sync.Once
}

const outletSize = 256

func newOutlet(sink bridge.Sink) *outlet {
	o := &outlet{sink: sink, events: make(chan func(context.Context), outletSize), given: make(chan struct{})}
	o.ctx, o.stop = context.WithCancel(context.Background())
	o.running.Go(func() {
		defer o.stop()
		for event := range o.events {
			event(o.ctx)
		}
	})
	return o
}

// share gives an outlet for another sink, in order with what goes through this one. It must be done with when this one closes.
func (o *outlet) share(sink bridge.Sink) *outlet {
	return &outlet{sink: sink, events: o.events, ctx: o.ctx, shares: true, given: make(chan struct{})}
}

// close lets the goroutine end when everything is delivered. Nothing may be added after it.
func (o *outlet) close() {
	if !o.shares {
		o.closing.Do(func() { close(o.events) })
	}
}

// abandon gives up what is not delivered yet, and says how much that is.
func (o *outlet) abandon() int {
	left := int(o.waiting.Load())
	o.giving.Do(func() { close(o.given) })
	if !o.shares {
		o.stop()
	}
	return left
}

// add waits for room. It says whether there was any, before a share gave up.
func (o *outlet) add(event func(ctx context.Context)) bool {
	if !o.shares {
		o.events <- event
		return true
	}
	select {
	case o.events <- event:
		return true
	case <-o.given:
		return false
	}
}

// deliver hands an event to the Sink until the Sink has it. It says whether the event has its place.
func (o *outlet) deliver(in *bridge.Incoming) bool {
	o.waiting.Add(1)
	placed := o.add(func(ctx context.Context) {
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
	})
	if !placed {
		o.waiting.Add(-1)
	}
	return placed
}

func (o *outlet) warn(channel, text string) {
	o.add(func(context.Context) { o.sink.Warn(channel, text) })
}

func (o *outlet) online() {
	o.add(func(context.Context) { o.sink.Online() })
}

// typing may be lost: it never waits.
func (o *outlet) typing(channel string, user bridge.RemoteUser, typing bool) {
	select {
	case o.events <- func(context.Context) { o.sink.Typing(channel, user, typing) }:
	default:
	}
}
