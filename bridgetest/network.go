package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// Network is a remote network that a test writes the script of: what the bridge sends is recorded and can be waited for,
// what the test says is delivered to the bridge. It has channels, topics, typing and memberships, and no message IDs
// unless [Network.MessageIDs] is set.
//
// A Network outlives the bridge: the messages that one bridge sent are there for the next one, as on a real network.
type Network struct {
	// MessageIDs makes the network give every message it gets an ID: "remote-1", "remote-2", …
	MessageIDs bool
	// OnOpen, when set, is called by every opening of the session, before it returns.
	OnOpen func(sink bridge.Sink)
	// TopicLength is how many bytes of a topic the network keeps; 0: all.
	TopicLength int
	// Guarantee is what the session states.
	Guarantee bridge.Guarantee

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	sink    bridge.Sink
	sent    []bridge.Message
	members []bridge.Membership
	topics  map[string]string
	typing  map[string][]string
	joined  map[string]bool
	faults  []error
	refused map[string]error
}

var (
	_ bridge.Network          = (*Network)(nil)
	_ bridge.Session          = (*scriptedSession)(nil)
	_ bridge.ChannelJoiner    = (*scriptedSession)(nil)
	_ bridge.TypingSender     = (*scriptedSession)(nil)
	_ bridge.MembershipSender = (*scriptedSession)(nil)
	_ bridge.TopicSender      = (*scriptedSession)(nil)
	_ bridge.Guarantor        = (*scriptedSession)(nil)
)

// NewNetwork makes an empty network.
func NewNetwork() *Network {
	return &Network{
		changed: make(chan struct{}), topics: map[string]string{}, typing: map[string][]string{},
		joined: map[string]bool{}, refused: map[string]error{},
	}
}

// Info calls the network "Scripted", with ghosts @test_….
func (n *Network) Info() bridge.Info {
	return bridge.Info{ID: "test", Name: "Scripted", Command: "!test", Version: "0"}
}

// Open makes the session. There is one at a time.
func (n *Network) Open(_ context.Context, _ *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	n.change(func() { n.sink = sink })
	if n.OnOpen != nil {
		n.OnOpen(sink)
	}
	return &scriptedSession{n}, nil
}

// Say delivers a plain message of a remote user. It returns when the bridge has stored it.
func (n *Network) Say(ctx context.Context, channel, user, text string) error {
	return n.Deliver(ctx, &bridge.Incoming{
		Channel: channel, Sender: bridge.RemoteUser{ID: user, Name: user}, Text: &bridge.Text{Kind: bridge.KindText, Body: text},
	})
}

// Deliver delivers anything.
func (n *Network) Deliver(ctx context.Context, in *bridge.Incoming) error {
	sink := n.Sink()
	if sink == nil {
		return errors.New("bridgetest: no bridge has opened this network")
	}
	return sink.Deliver(ctx, in)
}

// Sink is the bridge's end of the open session, or nil.
func (n *Network) Sink() bridge.Sink {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sink
}

// FailSends makes the next sends return these errors, one each; nil lets one through.
func (n *Network) FailSends(errs ...error) { n.change(func() { n.faults = append(n.faults, errs...) }) }

// FaultsLeft is how many of the errors of FailSends have not been returned yet.
func (n *Network) FaultsLeft() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.faults)
}

// Refuse makes a channel refuse to be joined, or with nil let the bridge in again.
func (n *Network) Refuse(channel string, err error) { n.change(func() { n.refused[channel] = err }) }

// Sent returns every message that arrived on the network.
func (n *Network) Sent() []bridge.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sent)
}

// Memberships returns every coming and going of Matrix users that the network was told of.
func (n *Network) Memberships() []bridge.Membership {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.members)
}

// Topic returns a channel's topic, as the bridge set it.
func (n *Network) Topic(channel string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.topics[channel]
}

// Typing returns the names of the Matrix users who are typing.
func (n *Network) Typing(channel string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.typing[channel])
}

// Joined says whether the bridge is in the channel.
func (n *Network) Joined(channel string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.joined[channel]
}

// Wait returns when cond is true, and otherwise an error when ctx ends. cond is asked again after every change on the
// network.
func (n *Network) Wait(ctx context.Context, what string, cond func() bool) error {
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("bridgetest: waiting for %s on the scripted network: %w", what, context.Cause(ctx))
		}
	}
}

// WaitSent waits for a message with this text, and returns it.
func (n *Network) WaitSent(ctx context.Context, text string) (found bridge.Message, err error) {
	err = n.Wait(ctx, fmt.Sprintf("the message %q", text), func() bool {
		i := slices.IndexFunc(n.Sent(), func(m bridge.Message) bool { return m.Text == text })
		if i >= 0 {
			found = n.Sent()[i]
		}
		return i >= 0
	})
	return found, err
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

type scriptedSession struct{ n *Network }

func (s *scriptedSession) Send(ctx context.Context, msg *bridge.Message) (sent bridge.Sent, err error) {
	s.n.change(func() {
		if len(s.n.faults) > 0 {
			err, s.n.faults = s.n.faults[0], s.n.faults[1:]
			if err != nil {
				return
			}
		}
		s.n.sent = append(s.n.sent, *msg)
		if s.n.MessageIDs {
			sent.IDs = []string{fmt.Sprintf("remote-%d", len(s.n.sent))}
		}
	})
	return sent, err
}

func (s *scriptedSession) Close(context.Context) error {
	s.n.change(func() { s.n.sink, s.n.joined = nil, map[string]bool{} })
	return nil
}

func (s *scriptedSession) JoinChannel(_ context.Context, channel string) (err error) {
	s.n.change(func() {
		if err = s.n.refused[channel]; err == nil {
			s.n.joined[channel] = true
		}
	})
	return err
}

func (s *scriptedSession) LeaveChannel(_ context.Context, channel string) error {
	s.n.change(func() { delete(s.n.joined, channel) })
	return nil
}

func (s *scriptedSession) SendTyping(_ context.Context, channel string, users []bridge.Sender) error {
	names := make([]string, len(users))
	for i, user := range users {
		names[i] = user.Name
	}
	s.n.change(func() { s.n.typing[channel] = names })
	return nil
}

func (s *scriptedSession) SendMembership(_ context.Context, m *bridge.Membership) error {
	s.n.change(func() { s.n.members = append(s.n.members, *m) })
	return nil
}

func (s *scriptedSession) SendTopic(_ context.Context, channel, topic string, _ bridge.Sender) (set string, err error) {
	if set = topic; s.n.TopicLength > 0 && len(set) > s.n.TopicLength {
		set = set[:s.n.TopicLength]
	}
	s.n.change(func() { s.n.topics[channel] = set })
	return set, nil
}

func (s *scriptedSession) Guarantee() bridge.Guarantee { return s.n.Guarantee }

// Timeout is a context that ends after two minutes, in which everything in a test should long have happened, also on a
// machine that is busy with something else.
func Timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Minute)
}
