//go:build goolm

package crypto_test

import (
	"fmt"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
)

// impostor is Eve, whose device, signed by her, names Alice's curve25519 key as its own.
func (w *world) impostor() *person {
	w.t.Helper()
	eve := newPerson(w, "eve")
	keys := eve.own(func(keys *mautrix.DeviceKeys) {
		keys.Keys[id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, keys.DeviceID)] = w.alice.olm.GetAccount().IdentityKey().String()
	})
	_, err := eve.client.UploadKeys(w.t.Context(), &mautrix.ReqUploadKeys{DeviceKeys: keys})
	w.no(err)
	w.no(eve.olm.ShareKeys(w.t.Context(), 0))
	eve.signs()
	eve.sign(keys)
	plain := map[id.KeyID]string{}
	for name, key := range keys.Keys {
		plain[id.KeyID(name)] = key
	}
	_, err = eve.client.UploadSignatures(w.t.Context(), &mautrix.ReqUploadSignatures{eve.ID(): map[string]mautrix.ReqKeysSignatures{string(eve.DeviceID()): {
		UserID: keys.UserID, DeviceID: keys.DeviceID, Algorithms: keys.Algorithms, Keys: plain, Signatures: keys.Signatures,
	}}})
	w.no(err)
	return eve
}

// gives has a ghost speak, and looks whether Alice has its key.
func (w *world) gives(ghost id.UserID, room id.RoomID) {
	w.t.Helper()
	w.no(w.crypto.Prepare(w.t.Context(), ghost))
	sealed, err := w.seal(ghost, room, "x")
	w.no(err)
	w.settle()
	w.alice.sync(room)
	if key, err := w.alice.olm.CryptoStore.GetGroupSession(w.t.Context(), room, sealed.SessionID); err != nil || key == nil {
		w.t.Errorf("Alice has no key of %s: %v", ghost, err)
	}
}

func TestShare_AnotherUserNamesHerDevicesCurve25519Key_SheHasTheKeysAllTheSame(t *testing.T) {
	for _, trust := range []crypto.Trust{crypto.TrustCrossSigned, crypto.TrustAny} {
		t.Run(trust.String(), func(t *testing.T) {
			w := newWorld(t)
			w.with(func(o *crypto.Options) { o.Send, o.Receive = trust, trust })
			w.alice.signs()
			eve := w.impostor()
			var ghosts []id.UserID
			for n := range 6 {
				ghosts = append(ghosts, w.ghost(fmt.Sprintf("g%d", n)))
			}
			room := w.room(ghosts...)
			_, err := eve.Join(t.Context(), string(room))
			w.no(err)
			w.settle()
			for _, ghost := range ghosts {
				w.gives(ghost, room)
			}
		})
	}
}

// The bridge has a session for the key before it hears of Alice.
func TestShare_AnotherUserHasNamedHerDevicesCurve25519KeyBefore_SheHasTheKeysAllTheSame(t *testing.T) {
	w := newWorld(t)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.alice.signs()
	eve := w.impostor()
	eves, err := eve.CreateRoom(t.Context(), bridgetest.RoomOptions{Encrypt: true, Preset: "public_chat"})
	w.no(err)
	w.no(w.as.Ghost(bot).EnsureJoined(t.Context(), eves))
	w.settle()
	_, err = w.seal(bot, eves, "to eve")
	w.no(err)
	if n, _ := w.sessions(w.alice.olm.GetAccount().IdentityKey()); n != 1 {
		t.Fatalf("there are %d sessions for Alice's key: this shows nothing", n)
	}
	room := w.room(bot)
	w.settle()
	w.gives(bot, room)
	if n, _ := w.sessions(w.alice.olm.GetAccount().IdentityKey()); n != 2 {
		t.Errorf("there are %d sessions, and not Eve's and Alice's", n)
	}
}

// Who has logged in as her names her curve25519 key as that of another device.
func TestRoomKey_AnotherDeviceOfHersNamesTheCurve25519Key_HerMessagesAreRead(t *testing.T) {
	for _, name := range []id.DeviceID{"AAAA", "zzzz"} { // before hers, and after it
		t.Run(string(name), func(t *testing.T) {
			w, bot, room, alice, _ := members(t)
			rogue := w.alice.again()
			keys := rogue.own(func(keys *mautrix.DeviceKeys) {
				keys.DeviceID = name
				keys.Keys = map[id.DeviceKeyID]string{
					id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, name): w.alice.olm.GetAccount().IdentityKey().String(),
					id.NewDeviceKeyID(id.KeyAlgorithmEd25519, name):    rogue.olm.GetAccount().SigningKey().String(),
				}
			})
			own := w.keysOf(w.alice.ID()).DeviceKeys[w.alice.ID()][w.alice.DeviceID()]
			defer w.alice.answers(map[string]any{string(name): keys, string(w.alice.DeviceID()): own}, func(fields) {})()
			w.outdated(w.alice.ID())
			_, err := w.seal(bot, room, "x")
			w.no(err)
			key := w.roomKey(room)
			p := alice.payload(key)
			p["sender_device_keys"] = object(own)
			w.no(w.crypto.HandleKeys(t.Context(), alice.encrypt(p)))
			w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
		})
	}
}
