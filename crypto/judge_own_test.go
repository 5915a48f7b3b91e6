//go:build goolm

package crypto_test

import (
	"errors"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// A second device of the bot's account, which its keys have signed, hands on a session that the bot has made, of which the bot has no copy any more. Whose event it is
// then for is not said of it: everybody in the room has that key.
func TestJudge_SessionOfTheBridgesOwnThatWasHandedOn_IsNobodyElses(t *testing.T) {
	w, bot, room, _, _ := members(t)
	sealed, err := w.seal(bot, room, "x")
	w.no(err)
	own, err := w.crypto.Session(t.Context(), bot, room, sealed.SessionID)
	w.no(err)
	exported, err := own.Internal.Export(own.Internal.FirstKnownIndex())
	w.no(err)
	w.changes(`DELETE FROM crypto_megolm_inbound_session`) // as after a month
	other := w.hand(w.alice.again(), bot)                  // keys that are the other device's
	signing, identity := other.p.olm.GetAccount().Keys()
	var self id.Ed25519
	keys, err := w.store.Foreign()
	w.no(err)
	w.no(keys.QueryRow(t.Context(), `SELECT key FROM crypto_cross_signing_keys WHERE user_id = $1 AND usage = 'self_signing'`, bot).Scan(&self))
	w.changes(`INSERT INTO crypto_device (user_id, device_id, identity_key, signing_key, trust, deleted, name) VALUES ($1, 'OTHER', $2, $3, 0, false, 'OTHER')`, bot, identity, signing)
	w.changes(`INSERT INTO crypto_cross_signing_signatures (signed_user_id, signed_key, signer_user_id, signer_key, signature) VALUES ($1, $2, $1, $3, 'signature')`, bot, signing, self)
	p := other.payload(w.roomKey(room))
	delete(p, "sender_device_keys")
	p["sender"], p["type"] = bot, event.ToDeviceForwardedRoomKey.Type
	p["content"] = fields{
		"algorithm": id.AlgorithmMegolmV1, "room_id": room, "session_id": sealed.SessionID, "session_key": string(exported), "forwarding_curve25519_key_chain": []string{},
		"sender_key": other.device.IdentityKey, "sender_claimed_ed25519_key": other.device.SigningKey,
	}
	message := other.encrypt(p)
	message.Sender = bot
	w.no(w.crypto.HandleKeys(t.Context(), message))
	if opened, err := w.crypto.Open(t.Context(), w.alice.encryptedEvent(room, "$1", object(sealed)), bot); !errors.Is(err, crypto.ErrUntrusted) {
		t.Errorf("under Alice's name: %q, %v, want ErrUntrusted", text(opened), err)
	}
}
