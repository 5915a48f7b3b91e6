//go:build goolm

package bridge_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/internal/olmclient"
)

// keyless keeps alice's room keys from the bridge until they are let through.
func (s *sealed) keyless() (let func()) {
	s.Helper()
	type request struct {
		path, auth string
		body       []byte
	}
	var mu sync.Mutex
	var held []request
	remove := s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/sendToDevice/m.room.encrypted/") || r.URL.Query().Get("user_id") != "" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		held = append(held, request{r.URL.Path, r.Header.Get("Authorization"), body})
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}"))
		return true
	})
	s.keys.Forget(s.room) // so that the next message has a new key
	return func() {
		remove()
		mu.Lock()
		defer mu.Unlock()
		for _, h := range held {
			req := must(http.NewRequestWithContext(s.ctx, http.MethodPut, s.hs.URL()+h.path, bytes.NewReader(h.body)))(s.T)
			req.Header.Set("Authorization", h.auth)
			resp := must(s.hs.Client().Do(req))(s.T)
			_ = resp.Body.Close()
		}
	}
}

func TestEncryption_RedactedBeforeItCame_IsPassedOver(t *testing.T) {
	s := newSealed(t, "bot")
	s.keys.Say(s.room, "before")
	s.arrives("before")
	s.b.Stop()
	event := s.keys.Say(s.room, "a slip")
	must(s.alice.Redact(s.ctx, s.room, event, ""))(t)
	s.b.Start()
	s.keys.Say(s.room, "after")
	s.arrives("after")
	told := s.keys.Seen(func(ev *olmclient.Event) bool {
		body, _ := ev.Content["body"].(string)
		return ev.Sender == s.b.BotID() && strings.Contains(body, "cannot read")
	})
	if len(told) > 0 {
		t.Errorf("alice is told %v", told[0].Content)
	}
	if letters := must(s.b.DeadLetters(s.ctx, 0))(t); len(letters) > 0 {
		t.Errorf("dead letters: %v", letters)
	}
}

func TestEncryption_KeyComesLate_MessageIsDeliveredThenAndOnce(t *testing.T) {
	for name, hold := range map[string]time.Duration{"while the room is held up": time.Minute, "when it is parked": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = hold })
			let := s.keyless()
			s.keys.Say(s.room, "late")
			if hold < time.Second {
				must(s.alice.SetTopic(s.ctx, s.room, "those behind it go on"))(t)
				s.ok(s.net.Wait(s.ctx, "the topic", func() bool { return s.net.Topic(lobby) != "" }))
				s.b.Stop() // it waits in the store
				s.b.Start()
			}
			let()
			s.arrives("late")
			s.keys.Say(s.room, "end")
			s.arrives("end")
			n := 0
			for _, m := range s.net.Sent() {
				if m.Text == "late" {
					n++
				}
			}
			if n != 1 {
				t.Errorf("it was delivered %d times", n)
			}
		})
	}
}

// A member makes up sessions, one for each event.
func TestEncryption_OneSendersUnreadableEvents_HoldUpTheRoomOnce(t *testing.T) {
	const hold, events = 2 * time.Second, 30
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = hold })
	mallory := s.hs.User("mallory")
	s.keys.Invite(s.room, mallory.ID())
	must(mallory.Join(s.ctx, string(s.room)))(t)
	for n := range events {
		must(mallory.Send(s.ctx, s.room, "m.room.encrypted", map[string]any{
			"algorithm": "m.megolm.v1.aes-sha2", "session_id": fmt.Sprintf("%043d", n), "ciphertext": strings.Repeat("A", 200), "sender_key": "x", "device_id": "D",
		}))(t)
	}
	begun := time.Now()
	s.keys.Say(s.room, "hello")
	s.arrives("hello")
	if waited := time.Since(begun); waited > hold*events/2 {
		t.Errorf("what alice wrote waited %s: each of %d events of somebody else's has held up the room for %s", waited, events, hold)
	}
}

// What is parked at once is delivered once its key comes, as what was waited for.
func TestEncryption_MoreOfASenderWhoseKeyDidNotCome_IsParkedAtOnceAndDeliveredWithItsKey(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = 50 * time.Millisecond })
	let := s.keyless()
	s.keys.Say(s.room, "one")
	s.keys.Forget(s.room) // so that the next has a key of its own
	s.keys.Say(s.room, "two")
	must(s.alice.SetTopic(s.ctx, s.room, "those behind them go on"))(t)
	s.ok(s.net.Wait(s.ctx, "the topic", func() bool { return s.net.Topic(lobby) != "" }))
	let()
	s.arrives("one")
	s.arrives("two")
}

func TestEncryption_KeyNeverComes_IsToldOnceAndADeadLetter(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) {
		cfg.Encryption.Hold, cfg.Encryption.Patience = 50*time.Millisecond, 300*time.Millisecond
	})
	let := s.keyless()
	s.keys.Say(s.room, "never one")
	s.keys.Say(s.room, "never two")
	letters := must(s.b.DeadLetters(s.ctx, 2))(t)
	for _, l := range letters {
		if l.Kind != "pdu" || !strings.Contains(l.Cause, "key") {
			t.Errorf("dead letter %+v", l)
		}
	}
	notice := s.reads(s.b.BotID(), "I cannot read this message")
	s.networkSays("end")
	s.reads(s.bob(), "end")
	if n := len(s.keys.Seen(func(ev *olmclient.Event) bool {
		body, _ := ev.Content["body"].(string)
		return ev.Sender == s.b.BotID() && strings.HasPrefix(body, "I cannot read")
	})); n != 1 {
		t.Errorf("alice was told %d times: %v", n, notice.Content)
	}
	let()
}

func TestEncryption_DeviceThatNobodyVouchesFor_IsNotBelieved(t *testing.T) {
	s := newSealed(t, "bot")
	mallory := person(t, s.hs, "mallory", func(o *olmclient.Options) { o.Unsigned, o.ShareWithAll = true, true })
	s.keys.Invite(s.room, mallory.User)
	mallory.Join(s.room)
	mallory.Say(s.room, "trust me")
	letters := must(s.b.DeadLetters(s.ctx, 1))(t)
	if !strings.Contains(letters[0].Cause, "trusted") {
		t.Errorf("dead letter %+v", letters[0])
	}
	s.reads(s.b.BotID(), "it comes from a device that its owner has not verified")
	must(s.hs.User("mallory").SendText(s.ctx, s.room, "in the clear"))(t)
	s.reads(s.b.BotID(), "it was not encrypted")
	for _, l := range must(s.b.DeadLetters(s.ctx, 2))(t) {
		if !strings.Contains(l.Cause, "encryption.receive") {
			t.Errorf("the setting is not named: %s", l.Cause)
		}
	}
	for _, m := range s.net.Sent() {
		t.Errorf("the network got %q", m.Text)
	}
}
