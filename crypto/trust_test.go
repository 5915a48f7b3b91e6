//go:build goolm

package crypto_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

func TestI1_I6_OlmMessage_CarriesTheSelfSigningKeysSignatureAlsoAfterAReset(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	room := w.room(ghost)
	for _, what := range []string{"first", "after a reset"} {
		w.no(w.crypto.Prepare(t.Context(), ghost))
		_, err := w.seal(ghost, room, "x")
		w.no(err)
		self := w.keysOf(ghost).SelfSigningKeys[ghost]
		keys, err := w.crypto.SenderKeys(t.Context(), ghost)
		w.no(err)
		if _, there := keys.Signatures[ghost][id.NewKeyID(id.KeyAlgorithmEd25519, self.FirstKey().String())]; !there || len(keys.Signatures[ghost]) != 2 {
			t.Errorf("%s: %+v", what, keys.Signatures)
		}
		there := w.keysOf(ghost).DeviceKeys[ghost][w.device(ghost)]
		if keys.UserID != there.UserID || keys.DeviceID != there.DeviceID || !slices.Equal(keys.Algorithms, there.Algorithms) || !maps.Equal(keys.Keys, there.Keys) {
			t.Errorf("%s: the message says %+v, and the homeserver %+v", what, keys, there)
		}
		for keyID, signature := range keys.Signatures[ghost] { // the homeserver keeps those of keys that were replaced, too
			if there.Signatures[ghost][keyID] != signature {
				t.Errorf("%s: the homeserver has another signature of %s", what, keyID)
			}
		}
		w.no(w.crypto.ResetCrossSigning(t.Context(), ghost))
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.DropAllRoomKeys() }))
	}
}

func TestI3_MessageOfADeviceThatIsGone_IsTrustedBySenderDeviceKeys(t *testing.T) {
	w := newWorld(t)
	w.alice.signs()
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.say(room, "hello", ghost)
	w.settle()
	ev := w.next()
	remove := w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool { // alice has logged out
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.Header.Get("Inner") != "" {
			return false
		}
		master, self := w.alice.olm.CrossSigningKeys.MasterKey, w.alice.olm.CrossSigningKeys.SelfSigningKey
		keys := map[string]any{"user_id": w.alice.ID(), "usage": []string{"self_signing"}, "keys": map[string]any{"ed25519:" + self.PublicKey().String(): self.PublicKey()}}
		signature, _ := master.SignJSON(keys)
		keys["signatures"] = map[string]any{string(w.alice.ID()): map[string]any{"ed25519:" + master.PublicKey().String(): signature}}
		_ = json.NewEncoder(rw).Encode(map[string]any{
			"device_keys": map[string]any{string(w.alice.ID()): map[string]any{}},
			"master_keys": map[string]any{string(w.alice.ID()): map[string]any{"user_id": w.alice.ID(), "usage": []string{"master"},
				"keys": map[string]any{"ed25519:" + master.PublicKey().String(): master.PublicKey()}}},
			"self_signing_keys": map[string]any{string(w.alice.ID()): keys},
		})
		return true
	})
	defer remove()
	opened, err := w.crypto.Open(t.Context(), ev, ghost)
	if err != nil || text(opened) != "hello" {
		t.Errorf("%v %v", opened, err)
	}
	devices, err := w.crypto.Devices(t.Context(), ghost, w.alice.ID())
	if err != nil || len(devices) != 0 {
		t.Errorf("a device that is gone is given keys: %v %v", devices, err)
	}
}

func TestTrust_DeviceThatItsOwnerHasNotSigned_IsNeitherReadNorWrittenTo(t *testing.T) {
	for _, signed := range []bool{false, true} {
		w := newWorld(t)
		ghost := w.ghost("ann")
		w.with(func(o *crypto.Options) { o.Receive, o.Send = crypto.TrustCrossSigned, crypto.TrustCrossSigned })
		w.no(w.crypto.Prepare(t.Context(), ghost))
		if signed {
			w.alice.signs()
		}
		room := w.room(ghost)
		w.alice.say(room, "hello", ghost)
		w.settle()
		opened, err := w.crypto.Open(t.Context(), w.next(), ghost)
		if signed != (err == nil && text(opened) == "hello") || !signed && !errors.Is(err, crypto.ErrUntrusted) {
			t.Errorf("signed %t: %v", signed, err)
		}
		sealed, err := w.seal(ghost, room, "back")
		w.no(err)
		w.alice.sync(room)
		_, err = w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, sealed.SessionID)
		if signed && err != nil || !signed && (err == nil || !strings.Contains(err.Error(), string(event.RoomKeyWithheldUnverified))) {
			t.Errorf("signed %t: alice has %v", signed, err)
		}
	}
}

func TestTrust_UserWithNewKeys_IsStillRead(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.signs()
	for _, body := range []string{"one", "two"} {
		w.alice.say(room, body, ghost)
		ev := w.next()
		w.no(w.crypto.Await(t.Context(), ghost, ev))
		opened, err := w.crypto.Open(t.Context(), ev, ghost)
		if err != nil || text(opened) != body {
			t.Errorf("%v %v", opened, err)
		}
		keys, err := w.store.Foreign()
		w.no(err)
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { // as if others had been there first
			_, err := keys.Exec(tx.Context(t.Context()), "UPDATE crypto_cross_signing_keys SET first_seen_key = 'another'")
			return err
		}))
	}
}

func TestParseTrust_IsWhatIsWritten(t *testing.T) {
	for _, trust := range []crypto.Trust{crypto.TrustAny, crypto.TrustCrossSigned, crypto.TrustVerified} {
		if got, err := crypto.ParseTrust(trust.String()); got != trust || err != nil {
			t.Errorf("%s: %s %v", trust, got, err)
		}
	}
	if got, err := crypto.ParseTrust(""); got != crypto.TrustCrossSigned || err != nil {
		t.Error(got, err)
	}
	if _, err := crypto.ParseTrust("tofu"); err == nil || !strings.Contains(err.Error(), "tofu") {
		t.Error(err)
	}
}
