//go:build goolm

package crypto_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"
	"time"

	"maunium.net/go/mautrix/crypto/canonicaljson"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// Anybody can sign the keys of his own device with keys that he makes up, and say so in each message to a device.
func TestShare_SignaturesThatSomebodyMakesUp_TakeNoKeyAway(t *testing.T) {
	w, bot, room, h := prepared(t)
	w.with(func(o *crypto.Options) { o.Receive, o.Send = crypto.TrustCrossSigned, crypto.TrustCrossSigned })
	w.alice.signs()
	w.settle()
	w.session(bot, room)
	first := w.session(bot, room)
	for range 3 {
		payload := h.payload(w.roomKey(room))
		keys := deviceKeys(payload)
		public, private, err := ed25519.GenerateKey(nil)
		w.no(err)
		signed := object(keys)
		delete(signed, "signatures")
		delete(signed, "unsigned")
		raw, err := canonicaljson.Marshal(signed)
		w.no(err)
		signature := base64.RawStdEncoding.EncodeToString(ed25519.Sign(private, raw))
		by := keys["signatures"].(map[string]any)[string(w.alice.ID())].(map[string]any)
		by["ed25519:"+base64.RawStdEncoding.EncodeToString(public)] = signature
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(payload)))
		if w.session(bot, room) != first {
			t.Fatal("the room has another key because of it")
		}
	}
}

// Of a room that no user of the bridge is known to hear of any more, nobody says who comes and goes.
func TestShare_RoomThatIsForgotten_HasAKeyForThoseWhoAreInItThen(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ann, ben := w.ghost("ann"), w.ghost("ben")
	w.no(w.crypto.Prepare(t.Context(), ann))
	room := w.room(ann, ben)
	w.session(ann, room)
	w.settle()
	first := w.session(ann, room)
	w.no(w.as.Ghost(ben).Leave(t.Context(), room, "")) // the bot is not there
	w.settle()
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.OutdateDevices(string(w.alice.ID())) }))
	if w.session(ann, room) == first {
		t.Error("the key is still in use although nobody follows who may read")
	}
	before := w.requests("/keys/query")
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.OutdateDevices(string(w.alice.ID())) }))
	w.session(ann, room)
	if w.requests("/keys/query") == before {
		t.Error("nobody asks for the members' devices")
	}
}

func TestShare_PeopleComeAndGoWhileADeviceHasNoKey_ItIsNotMadeToWaitLonger(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	crypto.GiveAgainAfter(w.crypto, 300*time.Millisecond)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	for range 50 {
		w.claim(w.alice.ID(), w.alice.DeviceID()) // by somebody else
	}
	w.session(ghost, room)
	for range 12 {
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.DropRoomKeys(string(room)) }))
		w.session(ghost, room)
	}
	last := w.session(ghost, room)
	w.no(w.alice.olm.ShareKeys(t.Context(), 0))
	for n := 0; w.session(ghost, room) == last; n++ {
		if n == 50 { // at 100 messages there would be another key anyway
			t.Fatal("each key that was taken away has doubled the time")
		}
		time.Sleep(100 * time.Millisecond)
	}
}
