package bridge_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// collapsing is a network whose session breaks down once, over a message that has left.
type collapsing struct {
	*bridgetest.Network
	over string
	did  atomic.Bool
}

func (n *collapsing) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	session, err := n.Network.Open(ctx, login, sink)
	return &collapsingSession{session, n}, err
}

type collapsingSession struct {
	bridge.Session
	n *collapsing
}

func (s *collapsingSession) Send(ctx context.Context, msg *bridge.Message) (bridge.Sent, error) {
	sent, err := s.Session.Send(ctx, msg)
	if msg.Text == s.n.over && !s.n.did.Swap(true) {
		panic("the session breaks down")
	}
	return sent, err
}

func TestSend_BrokenOffAfterTheMark_IsNotSentAgainAndItsSenderKnows(t *testing.T) {
	c := &crossing{T: t, hs: bridgetest.NewHomeserver(t), net: bridgetest.NewNetwork()}
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	c.ctx, c.alice = ctx, c.hs.User("alice")
	c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
	c.b = bridgetest.StartBridge(t, c.hs, &collapsing{Network: c.net, over: "perhaps"})
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	c.plumb()

	c.says("perhaps")
	c.says("surely")
	c.arrives("surely")
	if sent := c.net.Sent(); len(sent) != 2 {
		t.Fatalf("the network got %+v", sent)
	}
	c.seesNotice("This message may not have reached Scripted: the bridge was stopped while it was sending it.")
}
