package bridge_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// lingering is a network whose sends return late: people there read a message before the bridge knows that it arrived.
type lingering struct {
	*bridgetest.Network
	release chan struct{}
}

func (n *lingering) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	session, err := n.Network.Open(ctx, login, sink)
	return &lingeringSession{session, n}, err
}

type lingeringSession struct {
	bridge.Session
	n *lingering
}

func (s *lingeringSession) Send(ctx context.Context, msg *bridge.Message) (bridge.Sent, error) {
	sent, err := s.Session.Send(ctx, msg)
	select {
	case <-s.n.release:
	case <-ctx.Done():
	}
	return sent, err
}

func TestReply_ToWhatIsStillOnItsWayToTheNetwork_WaitsForIt(t *testing.T) {
	c := &crossing{T: t, hs: bridgetest.NewHomeserver(t), net: bridgetest.NewNetwork()}
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	n := &lingering{c.net, make(chan struct{})}
	c.ctx, c.alice = ctx, c.hs.User("alice")
	c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
	c.net.MessageIDs = true
	c.b = bridgetest.StartBridge(t, c.hs, n)
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	c.plumb()
	first := c.says("question")
	c.arrives("question")
	for i, text := range []string{"answer", "another"} {
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
			Channel: lobby, ID: text, Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: text, ReplyTo: "remote-1"},
		}))
		if i == 0 {
			time.AfterFunc(200*time.Millisecond, func() { close(n.release) })
		}
		if got := c.sees(bridgetest.Message(c.bob(), text)); got.ReplyTo() != first {
			t.Errorf("%q points at %q, want %q", text, got.ReplyTo(), first)
		}
	}
}

func TestReply_ToWhatIsStillOnItsWayToMatrix_WaitsForIt(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, DropAfter: true}) // it is there, and the bridge does not know
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
		Channel: lobby, ID: "m1", Sender: bridge.RemoteUser{ID: "bob", Name: "bob"}, Text: &bridge.Text{Body: "question"},
	}))
	question := c.sees(bridgetest.Message(c.bob(), "question"))
	must(c.alice.SendReply(c.ctx, c.room, question.ID, "answer"))(t)
	if got := c.arrives("answer"); got.ReplyTo == nil || got.ReplyTo.RemoteID != "m1" || got.ReplyTo.Name != "bob" {
		t.Errorf("the reply is to %+v", got.ReplyTo)
	}
}

func TestRedaction_OfWhatWaitsForTheNetwork_CancelsIt(t *testing.T) {
	c := newCrossing(t)
	c.net.FailSends(errors.New("the line is busy"))
	secret := c.says("secret")
	c.ok(c.net.Wait(c.ctx, "the attempt", func() bool { return c.net.FaultsLeft() == 0 }))
	must(c.alice.Redact(c.ctx, c.room, secret, ""))(t)
	c.says("end")
	c.arrives("end")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
	if dead := c.deadLetters(0); len(dead) != 0 {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestRedaction_ByTheNetwork_CancelsWhatWaitsAndTakesBackWhatIsThere(t *testing.T) {
	c := newCrossing(t)
	say := func(id string) {
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, ID: id, Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: id}}))
	}
	redact := func(id string) {
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Redact: &bridge.Redact{ID: id, Reason: "oops"}}))
	}
	say("there")
	there := c.sees(bridgetest.Message(c.bob(), "there"))
	c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, Status: http.StatusBadGateway}) // "first" is tried, and waits
	say("first")
	say("waits")
	redact("waits")
	redact("there")
	say("waits") // once more: it is known
	say("end")
	c.sees(bridgetest.Message(c.bob(), "end"))
	c.sees(func(e bridgetest.Event) bool {
		return e.Type == "m.room.redaction" && e.Sender == c.bob() && e.Content["redacts"] == string(there.ID) && e.Content["reason"] == "oops"
	})
	if got := c.textsOfBob(); got != ", first, end" {
		t.Errorf("the room has: %q", got)
	}
}
