package bridge_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

// plain returns everything readable that somebody other than alice put into the room after the last event of a type.
func (c *crossing) plain() (texts []string) {
	c.Helper()
	encrypted := false
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(c.T) {
		if e.Type == "m.room.encryption" {
			encrypted = true
		}
		if encrypted && e.Sender != c.alice.ID() && e.Type != "m.room.member" {
			texts = append(texts, e.Type+" "+e.Body())
		}
	}
	return texts
}

func (c *crossing) encrypts() {
	c.Helper()
	c.ok(c.alice.EnableEncryption(c.ctx, c.room))
	c.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
}

func TestEncryptedRoom_TopicAndTyping_StayOutside(t *testing.T) {
	c := newCrossing(t)
	c.empowerBot()
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	c.encrypts()
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Topic: &bridge.Topic{Text: "secret"}}))
	must(c.b.DeadLetters(c.ctx, 1))(t)
	before := len(c.typingRequests())
	c.net.Sink().Typing(lobby, bridge.RemoteUser{ID: "bob"}, true)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "in the clear"))
	must(c.b.DeadLetters(c.ctx, 2))(t)
	if got := c.plain(); len(got) != 1 {
		t.Errorf("into the encrypted room went %q, want the sentence alone", got)
	}
	if after := len(c.typingRequests()); after != before {
		t.Error("the encrypted room was told who types")
	}
	before = len(must(c.b.DeadLetters(c.ctx, 2))(t))
	c.says("plain text in an encrypted room")
	must(c.b.DeadLetters(c.ctx, before+1))(t)
	for _, m := range c.net.Sent() {
		if m.Text == "plain text in an encrypted room" {
			t.Error("text from the encrypted room went out, although the sentence says that it does not")
		}
	}
}

func (c *crossing) typingRequests() []bridgetest.Request {
	return c.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/typing/") && r.User == c.bob() })
}

func TestEncryptedRoom_SwitchedOnWhileTheBotWasOut_IsNoticed(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.alice.Kick(c.ctx, c.room, c.b.BotID(), ""))
	c.ok(c.net.Wait(c.ctx, "the bot to leave the channel", func() bool { return !c.net.Joined(lobby) }))
	c.ok(c.alice.EnableEncryption(c.ctx, c.room))
	c.ok(c.alice.Invite(c.ctx, c.room, c.b.BotID()))
	c.seesNotice("This room is encrypted")
	c.says("!test plumb " + lobby)
	c.ok(c.hs.Settle(c.ctx))
	c.b.Stop()
	if portals := c.storedPortals(); len(portals) != 0 {
		t.Errorf("an encrypted room was plumbed: %+v", portals)
	}
	if got := c.plain(); len(got) != 1 {
		t.Errorf("into the encrypted room went %q, want the sentence alone", got)
	}
}

// storedPortals gives the portals of a bridge that was stopped.
func (c *crossing) storedPortals() []store.Portal {
	c.Helper()
	s := must(store.Open(c.ctx, c.b.Config.Database, store.Options{}))(c.T)
	defer s.Close()
	return must(s.Portals(c.ctx))(c.T)
}

// The homeserver is slow with the ghost's device, and meanwhile the room becomes encrypted.
func TestEncryptedRoom_SwitchedOnWhileAGhostGetsItsDevice_IsNoticedBeforeBytesLeave(t *testing.T) {
	c := newCrossing(t)
	asked, encrypted := make(chan struct{}), make(chan struct{})
	remove := c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/devices/") {
			close(asked)
			<-encrypted
		}
		return false
	})
	defer remove()
	c.ok(c.net.Say(c.ctx, lobby, "bob", "in the clear"))
	<-asked
	c.ok(c.alice.EnableEncryption(c.ctx, c.room))
	c.ok(c.hs.Settle(c.ctx))
	close(encrypted)
	must(c.b.DeadLetters(c.ctx, 1))(t)
	for _, text := range c.plain() {
		if strings.Contains(text, "in the clear") {
			t.Errorf("plaintext entered an encrypted room: %s", text)
		}
	}
}

func TestEncryptedRoom_SwitchedOnBeforeTheConfigurationConnectsIt_IsRefused(t *testing.T) {
	c := configured(t, publicRoom)
	c.isConnected()
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	c.ok(c.alice.Kick(c.ctx, c.room, c.b.BotID(), ""))
	c.ok(c.net.Wait(c.ctx, "the bot to leave the channel", func() bool { return !c.net.Joined(lobby) }))
	c.b.Stop()
	c.ok(c.alice.EnableEncryption(c.ctx, c.room))
	c.b.Start() // the room is public, so the bot comes in by itself
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	time.Sleep(500 * time.Millisecond)
	if c.net.Joined(lobby) {
		t.Error("an encrypted room was connected")
	}
}

// A ghost is kicked and its message refused; it comes in again for it, and meanwhile encryption is switched on.
func TestEncryptedRoom_SwitchedOnBeforeARefusedMessageIsSentOnceMore_IsNoticed(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	var once sync.Once
	defer c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) (refused bool) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/send/m.room.message/") && r.URL.Query().Get("user_id") == string(c.bob()) {
			once.Do(func() {
				c.ok(c.alice.Kick(c.ctx, c.room, c.bob(), ""))
				c.ok(c.alice.EnableEncryption(c.ctx, c.room))
				c.ok(c.hs.Settle(c.ctx))
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`{"errcode":"M_FORBIDDEN","error":"not in the room"}`))
				refused = true
			})
		}
		return refused
	})()
	c.ok(c.net.Say(c.ctx, lobby, "bob", "in the clear"))
	for len(must(c.b.DeadLetters(c.ctx, 0))(t)) == 0 {
		if slices.Contains(c.plain(), "m.room.message in the clear") {
			t.Fatal("plaintext entered an encrypted room")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// So it is with why a message is taken back.
func TestEncryptedRoom_SwitchedOnBeforeARefusedRedactionIsSentOnceMore_NobodyReadsWhy(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, ID: "1", Text: &bridge.Text{Body: "a slip"}}))
	said := c.sees(bridgetest.Message(c.bob(), "a slip"))
	var once sync.Once
	defer c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) (refused bool) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/redact/") {
			once.Do(func() {
				c.ok(c.alice.Kick(c.ctx, c.room, c.bob(), ""))
				c.ok(c.alice.EnableEncryption(c.ctx, c.room))
				c.ok(c.hs.Settle(c.ctx))
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`{"errcode":"M_FORBIDDEN","error":"not in the room"}`))
				refused = true
			})
		}
		return refused
	})()
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Redact: &bridge.Redact{ID: "1", Reason: "a word of the channel"}}))
	redacted := c.sees(func(e bridgetest.Event) bool { return e.Type == "m.room.redaction" && e.Sender == c.bob() })
	if why := redacted.Content["reason"]; why != nil {
		t.Errorf("of %s the homeserver reads %v", said.ID, why)
	}
}
