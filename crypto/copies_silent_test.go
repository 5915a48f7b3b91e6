//go:build goolm

package crypto_test

import (
	"errors"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// Somebody has logged in as Alice, and gives the bridge her room key first. Then her new device gives it, which she has signed: the message says so itself, whatever
// her homeserver answers.
func TestRoomKey_FromADeviceThatIsNotTrustedFirst_AndTheMakersServerIsSilent_HerSignatureInTheMessageCounts(t *testing.T) {
	for _, signed := range []bool{true, false} {
		onBoth(t, func(t *testing.T, w *world) {
			bot, room, _, _ := w.members()
			_, err := w.seal(bot, room, "x") // by which her cross-signing keys are known
			w.no(err)
			asked, letGo := w.silent(w.alice.ID())
			letGo()
			key := w.roomKey(room)
			gives := func(device *person, name string, signed bool) error {
				h := w.hand(device, bot)
				p, keys := h.payload(key), device.under(name)
				if signed {
					w.alice.sign(keys)
				}
				p["sender_device_keys"] = object(keys)
				return w.crypto.HandleKeys(t.Context(), h.encrypt(p))
			}
			w.no(gives(w.alice.again(), "STRANGE", false))
			if err := gives(w.alice.again(), "NEW", signed); (err == nil) != signed || !signed && !errors.Is(err, crypto.ErrMismatch) {
				t.Errorf("the second device, signed %t: %v", signed, err)
			}
			opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "one"), bot)
			if signed && (err != nil || text(opened) != "one") || !signed && !errors.Is(err, crypto.ErrUntrusted) {
				t.Errorf("her message, the second device signed %t: %q, %v", signed, text(opened), err)
			}
			if signed && len(asked) > 0 {
				t.Errorf("%d questions were waited for", len(asked))
			}
		})
	}
}

// Her own message may be of the time before she has signed her device.
func TestRoomKey_FromADeviceThatIsNotTrustedFirst_AndTheMakersMessageIsNotSignedByHer_HerServerIsAsked(t *testing.T) {
	w, bot, room, alice, _ := members(t)
	key := w.roomKey(room)
	early := w.hand(w.alice.again(), bot)
	p := early.payload(key)
	delete(p, "sender_device_keys")
	w.no(w.crypto.HandleKeys(t.Context(), early.encrypt(p)))
	p = alice.payload(key)
	by := p["sender_device_keys"].(fields)["signatures"].(fields)[string(w.alice.ID())].(fields)
	delete(by, id.NewKeyID(id.KeyAlgorithmEd25519, w.alice.olm.CrossSigningKeys.SelfSigningKey.PublicKey().String()).String())
	if len(by) != 1 {
		t.Fatalf("the device is signed by %v", by)
	}
	w.no(w.crypto.HandleKeys(t.Context(), alice.encrypt(p)))
	w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
}
