//go:build goolm

package crypto_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// withFallback is a hand whose session was begun with the fallback key, which serves more than one.
func (w *world) withFallback(p *person, to id.UserID) *hand {
	w.t.Helper()
	h := w.hand(p, to)
	for range 200 {
		key := w.claim(to, h.device.DeviceID)
		if !key.Fallback {
			continue
		}
		var err error
		h.session, err = p.olm.GetAccount().Internal.NewOutboundSession(h.device.IdentityKey, key.Key)
		w.no(err)
		return h
	}
	w.t.Fatal("no fallback key was claimed")
	return nil
}

// spelt is encrypt with a sender_key of its own.
func (h *hand) spelt(payload any, key id.SenderKey) *appservice.Event {
	ev := h.encrypt(payload)
	var said struct {
		Content fields `json:"content"`
	}
	_ = json.Unmarshal(ev.Raw, &said)
	said.Content["sender_key"] = key
	return h.message(said.Content)
}

// otherwise is another text that lax decoders take for the same 32 bytes: the last character has two bits that count for nothing.
func otherwise[T ~string](key T, bits byte) T {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for n := range alphabet {
		if alphabet[n] == key[42] {
			return key[:42] + T(alphabet[byte(n)^bits])
		}
	}
	return key
}

// A message of anybody was tried for a day in front of everybody's room keys: its session was there already, under the other spelling.
func TestOlm_SenderKeyInAnotherSpelling_IsRefusedForGood_AndTheNextMessageIsRead(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		h := w.withFallback(w.alice, bot)
		own := w.alice.olm.GetAccount().IdentityKey()
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))))
		for _, key := range []id.SenderKey{otherwise(own, 1), otherwise(own, 2), otherwise(own, 3), own + "=", own + "\n", own[:20] + "\n" + own[20:]} {
			if raw, err := base64.RawStdEncoding.DecodeString(string(otherwise(own, 1))); err != nil || base64.RawStdEncoding.EncodeToString(raw) != string(own) {
				t.Fatal("it is no spelling of the key, and this shows nothing", err)
			}
			err := w.crypto.HandleKeys(t.Context(), h.spelt(h.payload(w.roomKey(room)), key))
			if !errors.Is(err, crypto.ErrCorrupt) || !appservice.IsPermanent(err) || store.IsConstraint(err) {
				t.Errorf("%q: got %v, want ErrCorrupt before the database is asked", key, err)
			}
		}
		key := w.roomKey(room)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
		w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
	})
}

// Whatever it is that brings a session a second time.
func TestOlm_SessionThatTheDatabaseHasAlready_IsRefusedForGood_AndTheNextMessageIsRead(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		h := w.withFallback(w.alice, bot)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))))
		own := w.alice.olm.GetAccount().IdentityKey()
		w.changes(`UPDATE crypto_olm_session SET sender_key = $1`, otherwise(own, 1))
		for range 2 {
			err := w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room))))
			if !errors.Is(err, crypto.ErrCorrupt) || !appservice.IsPermanent(err) || !store.IsConstraint(err) {
				t.Errorf("got %v, want ErrCorrupt because the database does not take it", err)
			}
		}
		bob := w.hand(newPerson(w, "bob"), bot)
		key := w.roomKey(room)
		w.takes(bob, key, nil)
		w.readsAs(bob.p.sealedWith(key, "$1", "one"), bot, "one")
	})
}
