package irc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
	"maunium.net/go/mautrix/id"
)

// session is the relay bot's connection to the network, through any number of links.
type session struct {
	config  Config
	version string
	out     *outlet
	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup // of the connecting goroutine and the writers

	mu       sync.Mutex    // guards everything below, and all of link but its queue
	link     *link         // registered, or nil
	changed  chan struct{} // closed and made anew when link or stopped changes
	stopped  error         // why there will never be a link again
	mapping  casemap.Mapping
	channels map[string]*channel // by folded name
	progress map[id.EventID]*delivery
	answered answers
	typing   map[string]time.Time // by folded channel: when we last said so
	labelNo  uint64
}

var (
	_ bridge.Session          = (*session)(nil)
	_ bridge.ChannelJoiner    = (*session)(nil)
	_ bridge.TypingSender     = (*session)(nil)
	_ bridge.MembershipSender = (*session)(nil)
	_ bridge.TopicSender      = (*session)(nil)
	_ bridge.Guarantor        = (*session)(nil)
)

func open(ctx context.Context, config Config, version string, sink bridge.Sink) (*session, error) {
	// The session outlives the call that opened it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &session{
		config: config, version: version, out: newOutlet(sink), ctx: ctx, cancel: cancel,
		changed: make(chan struct{}), channels: map[string]*channel{}, progress: map[id.EventID]*delivery{},
		typing: map[string]time.Time{},
	}
	s.running.Go(s.connect)
	return s, nil
}

// connect makes one link after the other until Close, or until the network does not want it.
func (s *session) connect() {
	defer s.out.close()
	wait := backoff{first: s.config.Reconnect.First, max: s.config.Reconnect.Max}
	for {
		began := time.Now()
		err := s.live()
		if s.ctx.Err() != nil {
			return
		}
		var refusal *refusedError
		switch {
		case errors.As(err, &refusal) && refusal.forGood:
			s.stop(err)
			s.out.warn("", "IRC: "+err.Error()+". The bridge stays away until it is started again.")
			return
		case errors.As(err, &refusal):
			wait.worst()
			s.out.warn("", "IRC: "+err.Error()+". The bridge tries again from time to time.")
		case errors.Is(err, errNotRegistered):
			s.out.warn("", "IRC: no connection to "+s.config.Address+" ("+err.Error()+"). The bridge keeps trying.")
		case time.Since(began) > time.Minute || s.config.Reconnect.Max < time.Minute:
			wait.reset()
		}
		timer := time.NewTimer(wait.next())
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// stop makes every Send fail from now on.
func (s *session) stop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = bridge.Permanent(cause)
	for _, ch := range s.channels {
		ch.decide(s.stopped)
	}
	s.announce()
}

// announce wakes whoever waits for a change. The caller holds the lock.
func (s *session) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// linked waits for a registered link.
func (s *session) linked(ctx context.Context) (*link, error) {
	for {
		s.mu.Lock()
		l, stopped, changed := s.link, s.stopped, s.changed
		s.mu.Unlock()
		switch {
		case stopped != nil:
			return nil, stopped
		case l != nil:
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the connection to %s: %w", s.config.Address, ctx.Err())
		case <-s.ctx.Done():
			return nil, errClosed
		}
	}
}

var errClosed = errors.New("the session is closed")

// Close implements [bridge.Session]. What has come in is delivered before it returns, unless ctx ends first.
func (s *session) Close(ctx context.Context) error {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		// Goodbye is a courtesy: it may take a second, and no more.
		if goodbye, err := encode(nil, 512, "QUIT", "The bridge is going down"); err == nil {
			l.queue.hurry(goodbye)
			select {
			case <-l.ended:
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	s.cancel()
	s.mu.Lock()
	s.announce()
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		s.out.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		left := s.out.abandon()
		<-ended
		if left > 0 {
			return fmt.Errorf("closing the IRC session: %d events were not delivered: %w", left, ctx.Err())
		}
		return nil
	}
}

// Guarantee implements [bridge.Guarantor].
func (s *session) Guarantee() bridge.Guarantee {
	if s.config.Delivery == DeliveryAtLeastOnce {
		return bridge.AtLeastOnce
	}
	return bridge.AtMostOnce
}
