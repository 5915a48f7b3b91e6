package bridge_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// settling is a network that can be asked what became of a message.
type settling struct {
	*bridgetest.Network
	mu      sync.Mutex
	answers []error // of Settle; nil: it is there
	asked   int
}

var errAbsent = errors.New("absent")

func (n *settling) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	session, err := n.Network.Open(ctx, login, sink)
	return &settlingSession{session, n}, err
}

type settlingSession struct {
	bridge.Session
	n *settling
}

var _ bridge.DoubtSettler = (*settlingSession)(nil)

func (s *settlingSession) Settle(context.Context, *bridge.Message, func(string) (bool, error)) (bridge.Sent, bool, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	s.n.asked++
	err := s.n.answers[0]
	s.n.answers = s.n.answers[1:]
	if err == errAbsent {
		return bridge.Sent{}, false, nil
	}
	return bridge.Sent{IDs: []string{"found"}}, err == nil, err
}

func (n *settling) questions() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func newSettling(t *testing.T, answers ...error) (*crossing, *settling) {
	c := &crossing{T: t, hs: bridgetest.NewHomeserver(t), net: bridgetest.NewNetwork()}
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	n := &settling{Network: c.net, answers: answers}
	c.ctx, c.alice = ctx, c.hs.User("alice")
	c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
	c.b = bridgetest.StartBridge(t, c.hs, n)
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	c.plumb()
	c.net.FailSends(bridge.InDoubt(errors.New("the connection broke")))
	return c, n
}

func TestSettle_MessageIsThere_IsNotSentAgainAndCanBeAnswered(t *testing.T) {
	c, _ := newSettling(t, nil)
	first := c.says("perhaps")
	c.says("end")
	c.arrives("end")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
		Channel: lobby, ID: "r1", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: "answer", ReplyTo: "found"},
	}))
	if answer := c.sees(bridgetest.Message(c.bob(), "answer")); answer.ReplyTo() != first {
		t.Errorf("the answer points at %q, want %q", answer.ReplyTo(), first)
	}
	if dead := c.deadLetters(0); len(dead) != 0 {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestSettle_MessageIsNotThere_IsSentAgain(t *testing.T) {
	c, _ := newSettling(t, errAbsent)
	c.says("perhaps")
	c.says("end")
	c.arrives("end")
	if sent := c.net.Sent(); len(sent) != 2 || sent[0].Text != "perhaps" {
		t.Errorf("the network got %+v", sent)
	}
}

func TestSettle_NetworkIsAway_WaitsInDoubtAlsoOverARestart(t *testing.T) {
	c, n := newSettling(t, bridge.ErrOffline, bridge.ErrOffline, bridge.ErrOffline, nil)
	c.says("perhaps")
	for n.questions() == 0 && c.ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	c.b.Stop()
	c.b.Start()
	for n.questions() < 4 && c.ctx.Err() == nil {
		c.net.Sink().Online()
		time.Sleep(time.Millisecond)
	}
	c.says("end")
	c.arrives("end")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
	if dead := c.deadLetters(0); len(dead) != 0 {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestSettle_CannotBeFoundOut_IsADeadLetterAndToldOf(t *testing.T) {
	c, _ := newSettling(t, bridge.InDoubt(errors.New("no history")))
	c.says("perhaps")
	c.seesNotice("This message may not have reached Scripted: the connection broke.")
}
