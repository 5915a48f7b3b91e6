//go:build goolm

package bridge_test

import (
	"strings"
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
