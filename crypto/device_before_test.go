//go:build goolm

package crypto_test

import (
	"errors"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// named has the homeserver name one device of a person, and the bridge ask for it.
func (w *world) named(p *person, device *mautrix.DeviceKeys, bot id.UserID, room id.RoomID) (remove func()) {
	w.t.Helper()
	remove = p.answers(map[string]any{string(device.DeviceID): device}, func(fields) {})
	w.outdated(p.ID())
	_, err := w.seal(bot, room, "x")
	w.no(err)
	return remove
}

// Somebody logs out and in again under the same device ID. What the device wrote before is read after that, or its key comes after that.
func TestDevice_LoggedInAgainUnderItsID_IsReadAlsoInWhatItWroteBefore(t *testing.T) {
	for name, asked := range map[string]bool{"named by the homeserver before": true, "remembered of a message": false} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, w *world) {
				w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
				bot := w.as.Bot().UserID()
				w.no(w.crypto.Prepare(t.Context(), bot))
				room := w.room(bot)
				w.alice.signs()
				w.settle()
				h := w.hand(w.alice, bot)
				if asked {
					_, err := w.seal(bot, room, "x")
					w.no(err)
				}
				early, late := w.roomKey(room), w.roomKey(room)
				w.takes(h, early, nil)
				lately := h.payload(late)
				defer w.named(w.alice, w.alice.made(string(w.alice.DeviceID()), true), bot, room)()
				w.readsAs(w.alice.sealedWith(early, "$1", "before"), bot, "before")
				w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(lately)))
				w.readsAs(w.alice.sealedWith(late, "$2", "late"), bot, "late")
				if devices, err := w.crypto.Devices(t.Context(), bot, w.alice.ID()); err != nil || len(devices) != 1 {
					t.Errorf("%d devices get keys; %v", len(devices), err)
				}
			})
		})
	}
}

// Whose keys nobody vouches for any more is not read, and named.
func TestDevice_ThatWasReplacedAndThatNobodyHasSigned_IsUntrusted(t *testing.T) {
	for name, sign := range map[string]bool{"never signed": false, "by cross-signing keys of before": true} {
		w, bot, room, h := prepared(t)
		w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
		if sign {
			w.alice.signs()
		}
		w.settle()
		_, err := w.seal(bot, room, "x")
		w.no(err)
		key := w.roomKey(room)
		w.takes(h, key, nil)
		w.alice.olm.CrossSigningKeys = nil
		keys, err := w.alice.olm.GenerateCrossSigningKeys()
		w.no(err)
		w.alice.olm.CrossSigningKeys = keys
		remove := w.named(w.alice, w.alice.made(string(w.alice.DeviceID()), true), bot, room)
		if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "before"), bot); !errors.Is(err, crypto.ErrUntrusted) {
			t.Errorf("%s: got %q, %v, want ErrUntrusted", name, text(opened), err)
		}
		remove()
	}
}

func TestDevice_ThatIsReplacedAgainAndAgain_IsRememberedNoMoreThanOthersThatAreGone(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		crypto.KeepGone(w.crypto, 3)
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		w.alice.signs()
		var made []*mautrix.DeviceKeys
		for range 6 {
			made = append(made, w.alice.made("PHONE", true))
		}
		for _, device := range append(made, made[4], made[5], made[4]) { // and back
			w.named(w.alice, device, bot, room)()
		}
		rows := func(deleted bool) int {
			return w.count(`SELECT COUNT(*) FROM crypto_device WHERE user_id = $1 AND deleted = $2`, w.alice.ID(), deleted)
		}
		if live, gone := rows(false), rows(true); live != 1 || gone != 3 {
			t.Errorf("%d devices are known, and %d that are gone", live, gone)
		}
		devices, err := w.crypto.Devices(t.Context(), bot, w.alice.ID())
		w.no(err)
		if now := devices["PHONE"]; now == nil || now.SigningKey != made[4].Keys.GetEd25519("PHONE") {
			t.Errorf("the device is known as %+v", now)
		}
		if n := w.count(`SELECT COUNT(*) FROM crypto_device WHERE signing_key = $1`, made[4].Keys.GetEd25519("PHONE")); n != 1 {
			t.Errorf("it is known %d times", n)
		}
	})
}
