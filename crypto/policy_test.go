//go:build goolm

package crypto_test

import (
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

func TestNew_OtherPolicyOfSending_UsesNoKeyOfBefore(t *testing.T) {
	w := newWorld(t)
	start := func(send crypto.Trust) {
		w.with(func(o *crypto.Options) { o.Receive, o.Send = crypto.TrustAny, send })
	}
	start(crypto.TrustAny)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	has := func(session id.SessionID) bool {
		w.alice.sync(room)
		got, _ := w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, session)
		return got != nil
	}
	before := w.session(ghost, room)
	if !has(before) {
		t.Fatal("alice has no key although everybody is given one, and this shows nothing")
	}
	start(crypto.TrustAny)
	if w.session(ghost, room) != before {
		t.Error("nothing has changed, and the room has another key")
	}
	start(crypto.TrustCrossSigned)
	strict := w.session(ghost, room)
	if strict == before || has(strict) {
		t.Error("a device that nobody has signed reads on")
	}
	start(crypto.TrustCrossSigned)
	if w.session(ghost, room) != strict {
		t.Error("nothing has changed, and the room has another key")
	}
	start(crypto.TrustAny)
	if lax := w.session(ghost, room); !has(lax) {
		t.Error("a device that is given keys now has to wait for the next one")
	}
}
