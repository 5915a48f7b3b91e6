package irc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// session is the relay bot's connection to the network, or a Matrix user's own, through any number of links.
type session struct {
	config  Config
	version string
	dial    func(context.Context, *Config) (net.Conn, error)
	login   string // its ID
	crew    *crew
	out     *outlet
	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup // of the connecting goroutine and the writers

	looks []look // as others have seen it; the crew's lock guards it

	mu       sync.Mutex // guards everything below, and all of link but its queue
	link     *link      // registered, or nil
	stopped  error      // why there will never be a link again
	closing  bool       // by Close: a link that ends now has not broken
	mapping  casemap.Mapping
	channels map[string]*channel // by folded name
	progress map[id.EventID]*delivery
	answered answers
	typing   map[string]time.Time // by folded channel: when we last said so
	tidings  map[string]*tidings  // by the portal's channel
	telling  bool                 // somebody will look at tidings
	labelNo  uint64
	// hadHistory: the last link that was registered could be asked for what was said.
	hadHistory bool
	wasLinked  bool // a link was registered
	// redacts, reacts: the last link that was registered had that.
	redacts, reacts bool
	joinWait        time.Duration // how long the answer to a JOIN may take
}

// joinPatience is how long the network may take to answer a JOIN.
const joinPatience = 30 * time.Second

var (
	_ bridge.Session          = (*session)(nil)
	_ bridge.ChannelJoiner    = (*session)(nil)
	_ bridge.TypingSender     = (*session)(nil)
	_ bridge.MembershipSender = (*session)(nil)
	_ bridge.TopicSender      = (*session)(nil)
	_ bridge.Guarantor        = (*session)(nil)
	_ bridge.DoubtMarker      = (*session)(nil)
	_ bridge.DoubtSettler     = (*session)(nil)
	_ bridge.Redacter         = (*session)(nil)
	_ bridge.Reacter          = (*session)(nil)
)

func (n *Network) open(config Config, login *bridge.Login, sink bridge.Sink, c *crew) *session {
	// The session outlives the call that opened it.
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{
		config: config, version: n.version, dial: n.dial, login: login.ID, crew: c, out: c.out, ctx: ctx, cancel: cancel,
		channels: map[string]*channel{}, progress: map[id.EventID]*delivery{},
		typing: map[string]time.Time{}, tidings: map[string]*tidings{}, joinWait: joinPatience,
	}
	if s.relays() {
		c.relay = s
	} else {
		s.out = c.out.share(sink)
	}
	s.running.Go(s.connect)
	return s
}

// relays says whether it speaks for everybody, and not for one Matrix user.
func (s *session) relays() bool { return s.login == bridge.RelayLogin }

// connect makes one link after the other until Close, or until the network does not want it.
func (s *session) connect() {
	wait := backoff{first: s.config.Reconnect.First, max: s.config.Reconnect.Max}
	for {
		s.log().Info().Msg("Connecting to " + s.config.host())
		began := time.Now()
		err := s.live()
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing || s.ctx.Err() != nil {
			return
		}
		var refusal *refusedError
		said := ""
		if errors.As(err, &refusal) {
			said = refusal.said
		}
		s.log().Warn().Err(err).Str("server_said", said).Msg("No connection to " + s.config.Address + " (network.address)")
		switch {
		case refusal != nil && refusal.forGood:
			s.stop(err)
			s.out.warn("", "IRC: "+err.Error()+". The bridge stays away until it is started again.")
			return
		case refusal != nil:
			wait.worst()
			s.out.warn("", "IRC: "+err.Error()+". The bridge tries again from time to time.")
		case errors.Is(err, errNotRegistered):
			s.out.warn("", "IRC: no connection to "+s.config.host()+reason(err)+". The bridge keeps trying.")
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

func (s *session) log() *zerolog.Logger { return s.out.sink.Log() }

// later runs fn after a while, unless the session is closed by then. Close waits for it.
func (s *session) later(after time.Duration, fn func()) *time.Timer {
	return time.AfterFunc(after, func() {
		s.mu.Lock()
		if s.ctx.Err() != nil {
			s.mu.Unlock()
			return
		}
		s.running.Add(1)
		s.mu.Unlock()
		defer s.running.Done()
		fn()
	})
}

func (s *session) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joinWait
}

// stop makes every Send fail from now on.
func (s *session) stop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = bridge.Permanent(cause)
	for _, ch := range s.channels {
		ch.decide(s.stopped)
	}
}

var errClosed = errors.New("the session is closed")

// Close implements [bridge.Session]. What has come in is delivered before it returns, unless ctx ends first.
func (s *session) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
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
	s.mu.Lock()
	s.cancel() // under the lock: from here on, nothing that was to run later begins
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		s.out.close()
		s.out.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		left := s.out.abandon() // of a login, only what it has not handed over
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
