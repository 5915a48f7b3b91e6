//go:build goolm

package crypto_test

import (
	"errors"
	"testing"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

// again is the person's device with new keys, which the homeserver does not have yet.
func (p *person) again() *person {
	p.w.t.Helper()
	again := *p
	again.olm = olm.NewOlmMachine(p.client, nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	p.w.no(again.olm.Load(p.w.t.Context()))
	return &again
}

// Somebody logs out, and in again under the same device ID, as clients can ask for. What the bridge remembers of the device is of the time before.
func TestDevice_LoggedInAgainUnderItsID_IsReadAndWrittenTo(t *testing.T) {
	for name, known := range map[string]func(w *world, bot id.UserID, room id.RoomID, h *hand){
		"named by the homeserver before": func(w *world, bot id.UserID, room id.RoomID, _ *hand) {
			_, err := w.seal(bot, room, "x")
			w.no(err)
		},
		"remembered of a message": func(w *world, _ id.UserID, room id.RoomID, h *hand) { w.takes(h, w.roomKey(room), nil) },
		"both": func(w *world, bot id.UserID, room id.RoomID, h *hand) {
			w.takes(h, w.roomKey(room), nil)
			_, err := w.seal(bot, room, "x")
			w.no(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, bot, room, h := prepared(t)
			w.with(func(*crypto.Options) {})
			known(w, bot, room, h)
			again := w.alice.again()
			again.publishes(func(*mautrix.DeviceKeys) {})
			w.settle()
			h = w.hand(again, bot)
			key := w.roomKey(room)
			w.takes(h, key, nil)
			w.readsAs(again.sealedWith(key, "$1", "I am back"), bot, "I am back")
			devices, err := w.crypto.Devices(t.Context(), bot, w.alice.ID())
			w.no(err)
			if now := devices[w.alice.DeviceID()]; now == nil || now.SigningKey != again.olm.GetAccount().SigningKey() || now.IdentityKey != again.olm.GetAccount().IdentityKey() {
				t.Errorf("the device is known as %+v", now)
			}
		})
	}
}

// What the homeserver said of a device a moment ago holds.
func TestI4_DeviceThatIsKnownWithAnotherKey_IsRefused(t *testing.T) {
	for name, spoil := range map[string]func(w *world, p fields){
		"another ed25519 key for its curve25519 key": func(w *world, p fields) {
			delete(p, "sender_device_keys")
			p["keys"] = fields{"ed25519": w.alice.again().olm.GetAccount().SigningKey()}
		},
		"other keys under its name": nil,
	} {
		w, bot, room, h := prepared(t)
		w.with(func(*crypto.Options) {})
		_, err := w.seal(bot, room, "x") // asks for the devices
		w.no(err)
		key := w.roomKey(room)
		if spoil == nil {
			again := w.alice.again()
			h = w.hand(again, bot)
			p := h.payload(key)
			p["sender_device_keys"] = object(again.own(func(*mautrix.DeviceKeys) {}))
			err = w.crypto.HandleKeys(t.Context(), h.encrypt(p))
		} else {
			p := h.payload(key)
			spoil(w, p)
			err = w.crypto.HandleKeys(t.Context(), h.encrypt(p))
		}
		if !errors.Is(err, crypto.ErrMismatch) || !appservice.IsPermanent(err) {
			t.Errorf("%s: got %v, want ErrMismatch", name, err)
		}
	}
}

// Who has cross-signing keys says by them who his devices are: others of the same ID could be anybody's.
func TestDevice_WithOtherKeysThanItHad_IsTakenOnlyWhenItsOwnerHasSignedThem_WhereHeCan(t *testing.T) {
	for _, c := range []struct{ crossSigns, signs, taken bool }{{true, false, false}, {true, true, true}, {false, false, true}} {
		w, bot, room, _ := prepared(t)
		w.with(func(*crypto.Options) {}) // trusts any
		if c.crossSigns {
			w.alice.signs()
		}
		_, err := w.seal(bot, room, "x")
		w.no(err)
		other := w.alice.made(string(w.alice.DeviceID()), c.signs)
		remove := w.alice.answers(map[string]any{string(w.alice.DeviceID()): other}, func(fields) {})
		w.outdated(w.alice.ID())
		_, err = w.seal(bot, room, "y")
		w.no(err)
		remove()
		devices, err := w.crypto.Devices(t.Context(), bot, w.alice.ID())
		w.no(err)
		now := devices[w.alice.DeviceID()]
		if taken := now != nil && now.IdentityKey == other.Keys.GetCurve25519(w.alice.DeviceID()); taken != c.taken || now != nil && !taken {
			t.Errorf("%+v: the device is known as %+v", c, now)
		}
	}
}

// A message may give its sender's device any ID, whoever of the user's devices has it, before the homeserver has named that one.
func TestDevice_WhoseIDAMessageHasTaken_IsKnownOnceItsHomeserverNamesIt(t *testing.T) {
	for _, display := range []string{"Her phone", ""} {
		w, bot, room, _ := prepared(t)
		w.with(func(*crypto.Options) {}) // trusts any
		w.alice.signs()
		names := func() {
			rogue := w.alice.again()
			h := w.hand(rogue, bot)
			p := h.payload(w.roomKey(room))
			p["sender_device_keys"] = rogue.keysAs("PHONE")
			w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
		}
		known := func(devices map[string]any) *id.Device {
			defer w.alice.answers(devices, func(fields) {})()
			w.outdated(w.alice.ID())
			_, err := w.seal(bot, room, "x")
			w.no(err)
			known, err := w.crypto.Devices(t.Context(), bot, w.alice.ID())
			w.no(err)
			return known["PHONE"]
		}
		names()
		phone := w.alice.made("PHONE", false)
		phone.Unsigned = map[string]any{"device_display_name": display}
		if now := known(map[string]any{"PHONE": phone}); now == nil || now.SigningKey != phone.Keys.GetEd25519("PHONE") {
			t.Errorf("the phone is known as %+v", now)
		}
		// From now on its keys are known, also while it is gone.
		if now := known(map[string]any{}); now != nil {
			t.Errorf("what is gone is known as %+v", now)
		}
		names() // which changes nothing
		if now := known(map[string]any{"PHONE": w.alice.made("PHONE", false)}); now != nil {
			t.Errorf("with other keys, which its owner has not signed, it is known as %+v", now)
		}
	}
}

func TestDevice_WithOtherKeysThanItHadThatItsOwnerHasNotSigned_IsReadOnlyWhereAnyIs(t *testing.T) {
	for receive, taken := range map[crypto.Trust]bool{crypto.TrustAny: true, crypto.TrustCrossSigned: false} {
		w, bot, room, _ := prepared(t)
		w.with(func(o *crypto.Options) { o.Receive = receive })
		w.alice.signs()
		_, err := w.seal(bot, room, "x")
		w.no(err)
		again := w.alice.again()
		again.publishes(func(*mautrix.DeviceKeys) {})
		w.settle()
		w.outdated(w.alice.ID())
		_, err = w.seal(bot, room, "y")
		w.no(err)
		h := w.hand(again, bot)
		key := w.roomKey(room)
		w.takes(h, key, nil)
		opened, err := w.crypto.Open(t.Context(), again.sealedWith(key, "$1", "swapped"), bot)
		if taken != (text(opened) == "swapped") || taken != (err == nil) || !taken && !errors.Is(err, crypto.ErrUntrusted) {
			t.Errorf("%s: %q %v", receive, text(opened), err)
		}
	}
}
