//go:build goolm

package crypto_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

// deep is JSON that mautrix takes seconds to make canonical once it is long enough.
func deep(levels int) json.RawMessage {
	return json.RawMessage(strings.Repeat("[", levels) + strings.Repeat("]", levels))
}

// All commits wait while what a message says of its sender is checked.
func TestSenderKeys_TooLongOrTooDeep_AreRefusedBeforeTheirSignaturesAreChecked_AndTheNextMessageIsRead(t *testing.T) {
	w, _, room, h := prepared(t)
	for name, extra := range map[string]any{"long": strings.Repeat("x", crypto.MostSaid), "deep": deep(50), "deep behind a quote": []any{`"`, `\"`, deep(50)}} {
		p := h.payload(w.roomKey(room))
		p["sender_device_keys"] = object(w.alice.own(func(keys *mautrix.DeviceKeys) { keys.Extra = map[string]any{"x": extra} }))
		if err := w.crypto.HandleKeys(t.Context(), h.encrypt(p)); !errors.Is(err, crypto.ErrCorrupt) || !appservice.IsPermanent(err) || !strings.Contains(err.Error(), "too long or too deep") {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := h.payload(w.roomKey(room))
	p["sender_device_keys"] = object(w.alice.own(func(keys *mautrix.DeviceKeys) {
		keys.Extra = map[string]any{"x": deep(5), "y": strings.Repeat("[", 100)}
	}))
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
}

func TestSenderKeys_SignaturesThatAreNone_CountAmongThoseThatAreLookedAt(t *testing.T) {
	w, bot, room, _ := prepared(t)
	for bad, kept := range map[int]int{3: 1, 4: 0} {
		p := w.alice.again()
		h := w.hand(p, bot)
		public, private, err := ed25519.GenerateKey(nil)
		w.no(err)
		for base64.RawStdEncoding.EncodeToString(public)[0] < 'b' { // it is looked at last
			public, private, err = ed25519.GenerateKey(nil)
			w.no(err)
		}
		keys := p.own(func(*mautrix.DeviceKeys) {})
		plain := object(keys)
		delete(plain, "signatures")
		delete(plain, "unsigned")
		canonical, err := json.Marshal(plain)
		w.no(err)
		of := keys.Signatures[p.ID()]
		of[id.NewKeyID(id.KeyAlgorithmEd25519, base64.RawStdEncoding.EncodeToString(public))] = base64.RawStdEncoding.EncodeToString(ed25519.Sign(private, canonical))
		for n := range bad {
			of[id.NewKeyID(id.KeyAlgorithmEd25519, fmt.Sprintf("%043s", fmt.Sprint(n, "A")))] = strings.Repeat("A", 86)
		}
		payload := h.payload(w.roomKey(room))
		payload["sender_device_keys"] = object(keys)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(payload)))
		if n := w.count(`SELECT COUNT(*) FROM crypto_cross_signing_signatures WHERE signed_key = $1`, p.olm.GetAccount().SigningKey()); n != kept {
			t.Errorf("behind %d signatures that are none, %d of one is kept, want %d", bad, n, kept)
		}
	}
}
