package bridge_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// reacting is a network with reactions, or without.
type reacting struct {
	*bridgetest.Network
	mu   sync.Mutex
	has  bool
	err  error
	keys []string
}

func (n *reacting) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	session, err := n.Network.Open(ctx, login, sink)
	return &reactingSession{session, n}, err
}

func (n *reacting) set(has bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.has, n.err = has, err
}

func (n *reacting) want(t *testing.T, keys ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.keys, keys) {
		t.Errorf("the network was given %.300q, want %q", n.keys, keys)
	}
}

type reactingSession struct {
	bridge.Session
	n *reacting
}

func (s *reactingSession) Reacts() bool {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	return s.n.has
}

func (s *reactingSession) SendReaction(_ context.Context, _ string, r *bridge.React, _ bridge.Sender) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	s.n.keys = append(s.n.keys, r.Key)
	return s.n.err
}

// newPlumbed is a room on a network of a test's own, which is built on net.
func newPlumbed(t *testing.T, network bridge.Network, net *bridgetest.Network) *crossing {
	t.Helper()
	c := &crossing{T: t, hs: bridgetest.NewHomeserver(t), net: net}
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	c.ctx, c.alice = ctx, c.hs.User("alice")
	c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
	c.b = bridgetest.StartBridge(t, c.hs, network)
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	c.plumb()
	return c
}

// newReacting is a room on such a network. react has alice react to a message, and goes on when the bridge has seen it.
func newReacting(t *testing.T) (n *reacting, c *crossing, react func(key string) id.EventID) {
	t.Helper()
	n = &reacting{Network: bridgetest.NewNetwork(), has: true}
	n.MessageIDs = true
	c = newPlumbed(t, n, n.Network)
	ctx := c.ctx
	said := must(c.alice.SendText(ctx, c.room, "what do you think?"))(t)
	c.arrives("what do you think?")
	return n, c, func(key string) id.EventID {
		t.Helper()
		ev := must(c.alice.Send(ctx, c.room, "m.reaction", map[string]any{
			"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": said, "key": key},
		}))(t)
		after := "after " + string(ev)
		c.says(after)
		c.arrives(after)
		return ev
	}
}

func TestReaction_KeyThatIsLongerThanAnyEmoji_IsPassedOver(t *testing.T) {
	n, c, react := newReacting(t)
	react(strings.Repeat("🎉", 5000))
	react("a\x00b")
	react("🎉")
	n.want(t, "🎉")
	if letters := must(c.b.DeadLetters(c.ctx, 0))(t); len(letters) > 0 {
		t.Errorf("there are dead letters: %+v", letters)
	}
}

// Neither of them is kept: a second one is not taken for one that is there already.
func TestReaction_NetworkDoesNotTakeIt_IsNotThere(t *testing.T) {
	n, c, react := newReacting(t)
	n.set(false, bridge.ErrOffline)
	first := react("🎉") // it does not wait either
	n.want(t)
	n.set(true, bridge.Permanent(errors.New("no such reaction")))
	second := react("🎉")
	n.set(true, nil)
	third := react("🎉")
	n.want(t, "🎉", "🎉")
	for _, ev := range []id.EventID{first, second} {
		must(c.alice.Redact(c.ctx, c.room, ev, ""))(t)
	}
	c.says("two are taken back")
	c.arrives("two are taken back")
	n.want(t, "🎉", "🎉")
	must(c.alice.Redact(c.ctx, c.room, third, ""))(t)
	c.says("so is the third")
	c.arrives("so is the third")
	n.want(t, "🎉", "🎉", "🎉")
}
