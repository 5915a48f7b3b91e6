//go:build goolm

package crypto_test

import (
	"errors"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// Whose a forwarded key is, only its maker knows, and a device of the same user that its owner has signed is believed.
func TestForwardedKey_FromAnybodyButItsMaker_IsRefused(t *testing.T) {
	w, bot, room, alice, bob := members(t)
	key := w.roomKey(room)
	ev := w.alice.sealedWith(key, "$1", "one")
	for name, spoil := range map[string]func(p fields){
		"of Alice": func(fields) {},
		"of Alice's curve25519 key, his ed25519 key": func(p fields) {
			p["content"].(fields)["sender_claimed_ed25519_key"] = bob.p.olm.GetAccount().SigningKey()
		},
		"of Alice's ed25519 key, his curve25519 key": func(p fields) { p["content"].(fields)["sender_key"] = bob.p.olm.GetAccount().IdentityKey() },
	} {
		p := bob.payload(key)
		w.alice.forwards(p)
		spoil(p)
		if err := w.crypto.HandleKeys(t.Context(), bob.encrypt(p)); !errors.Is(err, crypto.ErrUntrusted) || !appservice.IsPermanent(err) {
			t.Errorf("%s: got %v, want ErrUntrusted for good", name, err)
		}
	}
	if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("a key that Bob forwards was taken: %v", err)
	}
	p := alice.payload(key)
	w.alice.forwards(p)
	p["content"].(fields)["session_id"] = w.roomKey(room).ID()
	if err := w.crypto.HandleKeys(t.Context(), alice.encrypt(p)); !errors.Is(err, crypto.ErrCorrupt) {
		t.Errorf("of another session than it says: %v", err)
	}
	p = alice.payload(key)
	w.alice.forwards(p)
	w.no(w.crypto.HandleKeys(t.Context(), alice.encrypt(p)))
	w.readsAs(ev, bot, "one")
}

func TestForwardedKey_FromADeviceOfTheSameUser_IsTakenOnlyWhenItsOwnerHasSignedIt(t *testing.T) {
	w, bot, room, _, _ := members(t)
	key := w.roomKey(room)
	ev := w.alice.sealedWith(key, "$1", "one")
	other := w.hand(w.alice.again(), bot) // keys that will be the bot's other device's
	signing, identity := other.p.olm.GetAccount().Keys()
	keys, err := w.store.Foreign()
	w.no(err)
	put := func(query string, args ...any) {
		storetest.Commit(t, w.store, func(tx *store.Tx) error {
			_, err := keys.Exec(tx.Context(t.Context()), query, args...)
			return err
		})
	}
	forward := func(change func(p fields)) error {
		p := other.payload(key)
		w.alice.forwards(p)
		p["sender"] = bot
		delete(p, "sender_device_keys")
		change(p)
		message := other.encrypt(p)
		message.Sender = bot
		return w.crypto.HandleKeys(t.Context(), message)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, crypto.ErrUntrusted) {
			t.Errorf("%s: got %v, want ErrUntrusted", what, err)
		}
		if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) {
			t.Errorf("%s: the key was taken: %v", what, err)
		}
	}
	refused("from a device that nobody knows", forward(func(fields) {}))
	put(`INSERT INTO crypto_device (user_id, device_id, identity_key, signing_key, trust, deleted, name) VALUES ($1, 'OTHER', $2, $3, 0, false, 'OTHER')`, bot, identity, signing)
	refused("from one that is not signed", forward(func(fields) {}))
	var self id.Ed25519
	w.no(keys.QueryRow(t.Context(), `SELECT key FROM crypto_cross_signing_keys WHERE user_id = $1 AND usage = 'self_signing'`, bot).Scan(&self))
	put(`INSERT INTO crypto_cross_signing_signatures (signed_user_id, signed_key, signer_user_id, signer_key, signature) VALUES ($1, $2, $1, $3, 'signature')`, bot, signing, self)
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	if err := forward(func(p fields) { p["keys"] = fields{"ed25519": w.alice.again().olm.GetAccount().SigningKey()} }); err == nil {
		t.Error("one with another ed25519 key is believed")
	}
	if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("from one with another ed25519 key: the key was taken: %v", err)
	}
	w.no(forward(func(fields) {}))
	w.readsAs(ev, bot, "one")
}
