//go:build failpoints

package simulation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
)

// network is the remote network. It numbers its messages, keeps what the bridge has not acknowledged, and gives it again, as
// networks with acknowledgements do; now and then it forgets the last of them.
type network struct {
	*choices
	character
	note func(format string, args ...any)

	mu       sync.Mutex
	changed  chan struct{}
	channels map[string]*channel
	arrived  []arrival
	settled  map[string]bool // markers that have arrived, and that the bridge has no reason to send again
	replies  map[string]*bridge.Reply
	alive    *session
}

// channel is what people say in it, and how far the bridge has it.
type channel struct {
	said []*bridge.Incoming
	next int
	in   map[string]bool // who is there in the end
}

// arrival is a message that came from the bridge.
type arrival struct {
	marker, channel, id string
	event               id.EventID
	unasked             bool // it had arrived before, and nothing had happened since for which it had to be sent again
}

func newNetwork(c *choices, is character, note func(format string, args ...any)) *network {
	return &network{
		choices: c, character: is, note: note, changed: make(chan struct{}), channels: map[string]*channel{},
		settled: map[string]bool{}, replies: map[string]*bridge.Reply{},
	}
}

func (n *network) Info() bridge.Info {
	return bridge.Info{ID: "sim", Name: "Simnet", Command: "!sim", Version: "0"}
}

func (n *network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// says is somebody on the network.
func (w *world) says(in *bridge.Incoming) {
	n := w.net
	switch {
	case in.Text != nil:
		w.note("%s says %s", in.Sender.ID, in.Text.Body)
	case in.Members != nil:
		w.note("in %s there are %v", in.Channel, in.Members.Users)
	default:
		w.note("%s in %s: join %v, leave %v, another name %v", in.Sender.ID, in.Channel, in.Join != nil, in.Leave != nil, in.Rename)
	}
	n.change(func() {
		c := n.channels[in.Channel]
		c.said = append(c.said, in)
	})
}

// everythingTaken says whether the bridge has acknowledged all.
func (n *network) everythingTaken() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.channels {
		if c.next < len(c.said) {
			return false
		}
	}
	return true
}

// die is the moment from which on the bridge's process does nothing any more, whatever its goroutines still try.
func (n *network) die() {
	n.change(func() {
		if n.alive != nil {
			n.alive.dead = true
		}
		n.alive = nil
	})
}

func (n *network) Open(ctx context.Context, _ *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{n: n, sink: sink, cancel: cancel}
	n.change(func() { n.alive = s })
	for name := range n.channels {
		s.running.Go(func() { s.deliver(ctx, name) })
	}
	if n.marks {
		return &markingSession{s}, nil
	}
	return s, nil
}

type session struct {
	n       *network
	sink    bridge.Sink
	cancel  context.CancelFunc
	running sync.WaitGroup
	dead    bool // guarded by the network's lock
}

// deliver gives the bridge what was said in a channel, in order.
func (s *session) deliver(ctx context.Context, name string) {
	for ctx.Err() == nil {
		var in *bridge.Incoming
		s.n.mu.Lock()
		c, changed := s.n.channels[name], s.n.changed
		at := c.next
		if at < len(c.said) {
			in = c.said[at]
		}
		s.n.mu.Unlock()
		if in == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		copied := *in
		if err := s.sink.Deliver(ctx, &copied); err != nil {
			pause(ctx, time.Second)
			continue
		}
		again := s.n.about("the acknowledgement of "+name).IntN(12) == 0
		dead := false
		s.n.change(func() {
			if dead = s.dead; dead {
				return
			}
			c.next = at + 1
			for again && at > 0 && c.said[at].Text != nil { // the last messages are given again
				c.next, again = at, c.said[at-1].Text != nil && s.n.about("and the one before").IntN(2) == 0
				at--
			}
		})
		if dead {
			return // nobody hears the acknowledgement
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

var errBusy = errors.New("the network is busy")

func markerOf(text string) string { return strings.TrimPrefix(text, "* ") }

// Send takes a message, or does something else.
func (s *session) Send(ctx context.Context, msg *bridge.Message) (bridge.Sent, error) {
	marker := markerOf(msg.Text)
	n := s.n
	r := n.about("sending " + marker)
	what := 100
	if r.IntN(100) < n.sends {
		what = r.IntN(8)
	}
	pause(ctx, upTo(r, 3*time.Second))
	if ctx.Err() != nil {
		return bridge.Sent{}, bridge.InDoubt(ctx.Err())
	}
	n.note("%s is sent: %d", marker, what)
	switch what {
	case 0, 1:
		return bridge.Sent{}, errBusy
	case 2:
		later := upTo(r, time.Minute)
		s.running.Go(func() {
			time.Sleep(later)
			s.sink.Online()
		})
		return bridge.Sent{}, bridge.ErrOffline
	case 3:
		return bridge.Sent{}, bridge.InDoubt(errors.New("no answer came, and it had not arrived"))
	case 4:
		s.arrives(msg, marker)
		n.doubt(marker)
		return bridge.Sent{}, bridge.InDoubt(errors.New("no answer came, and it had arrived"))
	case 5:
		return bridge.Sent{}, bridge.Permanent(errors.New("the network does not want it"))
	case 6:
		pause(ctx, upTo(r, 20*time.Second))
	}
	return bridge.Sent{IDs: []string{s.arrives(msg, marker)}}, nil
}

func (s *session) arrives(msg *bridge.Message, marker string) (remoteID string) {
	s.n.change(func() {
		if s.dead {
			return
		}
		remoteID = fmt.Sprintf("remote-%s-%d", marker, len(s.n.arrived))
		s.n.arrived = append(s.n.arrived, arrival{marker, msg.Channel, remoteID, msg.ID, s.n.settled[marker]})
		s.n.settled[marker] = true
		s.n.replies[marker] = msg.ReplyTo
	})
	return remoteID
}

// doubt has the bridge not know that a message has arrived.
func (n *network) doubt(marker string) {
	n.change(func() { delete(n.settled, marker) })
}

func (s *session) Guarantee() bridge.Guarantee {
	if s.n.atLeastOnce {
		return bridge.AtLeastOnce
	}
	return bridge.AtMostOnce
}

func (s *session) Close(context.Context) error {
	s.cancel()
	s.running.Wait()
	s.n.change(func() {
		if s.n.alive == s {
			s.n.alive = nil
		}
		s.dead = true
	})
	return nil
}

// markingSession has messages wait before they leave.
type markingSession struct{ *session }

func (s *markingSession) SendMarked(ctx context.Context, msg *bridge.Message, leaving func(ctx context.Context) error) (bridge.Sent, error) {
	pause(ctx, upTo(s.n.about("the queue before "+markerOf(msg.Text)), 2*time.Second))
	if err := ctx.Err(); err != nil {
		return bridge.Sent{}, err
	}
	if err := leaving(ctx); err != nil {
		return bridge.Sent{}, err
	}
	return s.Send(ctx, msg)
}
