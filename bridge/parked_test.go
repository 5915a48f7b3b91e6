//go:build goolm

package bridge_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// doesNotArrive has the room go on, and looks whether the network was told after all.
func (s *sealed) doesNotArrive(text string) {
	s.Helper()
	s.keys.Say(s.room, "end of "+text)
	s.arrives("end of " + text)
	for _, m := range s.net.Sent() {
		if m.Text == text {
			s.Errorf("%q was redacted before its key came, and is on the network", text)
		}
	}
	if letters := must(s.b.DeadLetters(s.ctx, 0))(s.T); len(letters) > 0 {
		s.Errorf("dead letters: %+v", letters)
	}
}

func TestEncryption_RedactedWhileItIsParked_IsForgotten(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = 50 * time.Millisecond })
	let := s.keyless()
	event := s.keys.Say(s.room, "a slip")
	must(s.alice.SetTopic(s.ctx, s.room, "those behind it go on"))(t)
	s.ok(s.net.Wait(s.ctx, "the topic", func() bool { return s.net.Topic(lobby) != "" }))
	must(s.alice.Redact(s.ctx, s.room, event, ""))(t)
	s.ok(s.hs.Settle(s.ctx))
	let()
	s.doesNotArrive("a slip")
}

// Its redaction is taken in before it is parked, and its turn comes before that of what was parked.
func TestEncryption_RedactedBeforeItIsParked_IsNotDeliveredWhenItsKeyComes(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = time.Second })
	mallory := s.hs.User("mallory")
	s.keys.Invite(s.room, mallory.ID())
	must(mallory.Join(s.ctx, string(s.room)))(t)
	let := s.keyless()
	event := s.keys.Say(s.room, "a slip")
	must(mallory.Send(s.ctx, s.room, "m.room.encrypted", map[string]any{ // which holds up the redaction
		"algorithm": "m.megolm.v1.aes-sha2", "session_id": strings.Repeat("0", 43), "ciphertext": strings.Repeat("A", 200), "sender_key": "x", "device_id": "D",
	}))(t)
	must(s.alice.Redact(s.ctx, s.room, event, ""))(t)
	for len(s.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/sendToDevice/m.room_key_request") })) == 0 {
		s.ok(s.ctx.Err()) // until its key is asked for
		time.Sleep(10 * time.Millisecond)
	}
	let()
	s.doesNotArrive("a slip")
}

// The room is held up for a minute at most, and no longer than until the key is there.
func TestEncryption_KeyComesWhileItsMessageHoldsUpTheRoom_ItGoesOnAtOnce(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = time.Minute })
	let := s.keyless()
	s.keys.Say(s.room, "late")
	s.ok(s.hs.Settle(s.ctx))
	time.Sleep(500 * time.Millisecond) // until it was tried
	begin := time.Now()
	let()
	s.arrives("late")
	if waited := time.Since(begin); waited > 20*time.Second {
		t.Errorf("it waited for %s", waited.Round(time.Second))
	}
}

// Who speaks behind its coming can encrypt for it.
func TestEncryption_GhostComesIntoTheRoom_WithItsKeys(t *testing.T) {
	s := newSealed(t, "ghosts")
	var early atomic.Bool
	defer s.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/join") || strings.Contains(r.URL.Path, "/join/") {
			uploads := s.hs.Requests(func(r bridgetest.Request) bool { return r.User == s.bob() && strings.HasSuffix(r.Path, "/keys/upload") })
			if r.URL.Query().Get("user_id") == string(s.bob()) && len(uploads) == 0 {
				early.Store(true)
			}
		}
		return false
	})()
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob", Name: "Bob"}, Join: &bridge.Join{}}))
	s.sees(bridgetest.Member(s.bob(), "join"))
	if early.Load() {
		t.Error("it came before it had any")
	}
}
