package bridge_test

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// deadLetters waits for that many dead letters.
func (c *crossing) deadLetters(n int) []store.DeadLetter {
	c.Helper()
	return must(c.b.DeadLetters(c.ctx, n))(c.T)
}

func TestSend_TransientError_IsTriedAgainInOrder(t *testing.T) {
	c := newCrossing(t)
	c.net.FailSends(errors.New("the line is busy"))
	c.says("first")
	c.says("second")
	c.arrives("second")
	sent := c.net.Sent()
	if len(sent) != 2 || sent[0].Text != "first" || sent[0].Attempt != 1 {
		t.Errorf("the network got %+v", sent)
	}
}

func TestSend_PermanentError_TellsTheSenderAndKeepsADeadLetter(t *testing.T) {
	c := newCrossing(t)
	c.net.FailSends(bridge.Permanent(errors.New("you are banned")))
	event := c.says("first")
	notice := c.seesNotice("This message did not reach Scripted: you are banned.")
	if notice.ReplyTo() != event {
		t.Errorf("the notice answers %q, want %q", notice.ReplyTo(), event)
	}
	c.says("second")
	c.arrives("second")
	dead := c.deadLetters(1)
	if len(dead) != 1 || dead[0].Key != string(event) || !strings.Contains(dead[0].Cause, "you are banned") {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestSend_InDoubt_AtMostOnce_IsNotSentAgainAndItsSenderKnows(t *testing.T) {
	c := newCrossing(t)
	c.net.FailSends(bridge.InDoubt(errors.New("the connection broke")))
	c.says("perhaps")
	c.seesNotice("This message may not have reached Scripted: the connection broke.")
	c.says("surely")
	c.arrives("surely")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
}

func TestSend_InDoubt_AtLeastOnce_IsSentAgain(t *testing.T) {
	c := newCrossing(t)
	c.net.Guarantee = bridge.AtLeastOnce
	c.net.FailSends(bridge.InDoubt(errors.New("the connection broke")))
	c.says("perhaps")
	c.arrives("perhaps")
}

func TestRestart_LosesAndDoublesNothing(t *testing.T) {
	c := newCrossing(t)
	c.says("before")
	c.arrives("before")
	c.ok(c.net.Say(c.ctx, lobby, "bob", "from before"))
	c.sees(bridgetest.Message(c.bob(), "from before"))
	c.b.Stop()
	c.says("while it was away")
	c.b.Start()
	c.says("after")
	c.arrives("after")
	c.ok(c.net.Say(c.ctx, lobby, "bob", "from after"))
	c.sees(bridgetest.Message(c.bob(), "from after"))
	var texts []string
	for _, m := range c.net.Sent() {
		texts = append(texts, m.Text)
	}
	if got := strings.Join(texts, ", "); got != "before, while it was away, after" {
		t.Errorf("the network got: %s", got)
	}
	if devices := c.hs.Devices(c.bob()); len(devices) != 1 {
		t.Errorf("the ghost has devices %v, want exactly one", devices)
	}
}

func TestEncryptedRoom_GetsOneSentence_AndNothingCrosses(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.alice.EnableEncryption(c.ctx, c.room))
	c.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
	for range 2 {
		must(c.alice.Send(c.ctx, c.room, "m.room.encrypted", map[string]any{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "secret"}))(t)
	}
	c.ok(c.net.Say(c.ctx, lobby, "bob", "in the clear"))
	told := must(c.net.WaitSent(c.ctx, "A message of bob did not reach Matrix: the Matrix room is encrypted, and this bridge takes no part in it."))(t)
	if told.Kind != bridge.KindNotice {
		t.Errorf("the network was told by %+v", told)
	}
	dead := c.deadLetters(3)
	if len(dead) != 3 {
		t.Errorf("dead letters: %+v", dead)
	}
	for _, d := range dead {
		if !strings.Contains(d.Cause, "encryption.mode is off, or encryption in the entry of bridge.plumb") {
			t.Errorf("the setting is not named: %s", d.Cause)
		}
	}
	sentences := 0
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(t) {
		if e.Body() == "in the clear" {
			t.Error("plaintext entered an encrypted room")
		}
		if e.Sender == c.b.BotID() && strings.Contains(e.Body(), "is encrypted") {
			sentences++
		}
	}
	if sentences != 1 {
		t.Errorf("the room got %d sentences, want one", sentences)
	}
}

func TestEncryptedRoom_FromTheStart_IsRefusedInWords(t *testing.T) {
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	c := &crossing{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t), net: bridgetest.NewNetwork()}
	c.alice = c.hs.User("alice")
	c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{Encrypt: true}))(t)
	c.b = bridgetest.StartBridge(t, c.hs, c.net)
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
}

func TestMatrixRefusal_TellsTheNetwork(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	c.ok(c.alice.Ban(c.ctx, c.room, c.bob(), "spam"))
	c.sees(bridgetest.Member(c.bob(), "ban"))
	c.says("marker") // the ban reached the bridge before this did
	c.arrives("marker")
	c.ok(c.net.Say(c.ctx, lobby, "bob", "am I banned?"))
	c.arrives("A message of bob did not reach Matrix: the homeserver refused it (M_BAD_STATE).")
}

func TestStoreTakenOverByAnotherProcess_EndsTheBridge(t *testing.T) {
	server := storetest.PostgresServer(t)
	c := newCrossing(t, func(cfg *bridge.Config) { cfg.Database = server(t) })
	other := must(store.Open(c.ctx, c.b.Config.Database, store.Options{}))(t)
	defer other.Close()
	c.says("who holds the store?")
	select {
	case err := <-c.b.Ended():
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("the bridge ended with %v, want ErrFenced", err)
		}
	case <-c.ctx.Done():
		t.Error("the bridge goes on without its store")
	}
}

func TestMatrixRateLimit_MessageWaitsAndKeepsItsPlace(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	c.hs.Fault(bridgetest.Fault{
		Path: regexp.MustCompile(`/send/m\.room\.message/`), Times: 1, Status: http.StatusTooManyRequests,
		ErrCode: "M_LIMIT_EXCEEDED", RetryAfter: 1500 * time.Millisecond,
	})
	c.ok(c.net.Say(c.ctx, lobby, "bob", "first"))
	c.ok(c.net.Say(c.ctx, lobby, "bob", "second"))
	c.sees(bridgetest.Message(c.bob(), "second"))
	var texts []string
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(t) {
		if e.Sender == c.bob() && e.Type == "m.room.message" {
			texts = append(texts, e.Body())
		}
	}
	if got := strings.Join(texts, ", "); got != "hi, first, second" {
		t.Errorf("the room has: %s", got)
	}
}
