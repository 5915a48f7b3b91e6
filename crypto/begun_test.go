//go:build goolm

package crypto_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// sessions is how many Olm sessions are in the store with a key, and with any.
func (w *world) sessions(key id.SenderKey) (with, all int) {
	w.t.Helper()
	keys, err := w.store.Foreign()
	w.no(err)
	w.no(keys.QueryRow(w.t.Context(), `SELECT COALESCE(SUM(CASE WHEN sender_key = $1 THEN 1 ELSE 0 END), 0), COUNT(*) FROM crypto_olm_session`, key).Scan(&with, &all))
	return with, all
}

func TestOlmSessions_FromKeysThatSomebodyMakesUp_FillTheDatabaseWithNoMoreThanTheNewest_AndPushNoDevicesOut(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		crypto.KeepBegun(w.crypto, 10)
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		bob := newPerson(w, "bob")
		for _, h := range []*hand{w.hand(w.alice, bot), w.hand(bob, bot)} { // nobody knows their devices yet
			w.takes(h, w.roomKey(room), func(fields) {})
		}
		_, err := w.seal(bot, room, "x") // asks for Alice's
		w.no(err)
		var made []id.SenderKey
		for n := range 40 {
			h := w.hand(w.alice.again(), bot)
			made = append(made, h.p.olm.GetAccount().IdentityKey())
			p := h.payload(w.roomKey(room))
			delete(p, "sender_device_keys")
			var want error
			if n%2 == 0 {
				p["recipient"], want = "@test_other:hs.test", crypto.ErrNotForMe
			}
			if err := w.crypto.HandleKeys(t.Context(), h.encrypt(p)); !errors.Is(err, want) {
				t.Fatal(err)
			}
		}
		for n, key := range made {
			if with, _ := w.sessions(key); (with == 1) != (n >= 30) {
				t.Errorf("of made up key %d there are %d sessions", n, with)
			}
		}
		for _, p := range []*person{w.alice, bob} {
			if with, _ := w.sessions(p.olm.GetAccount().IdentityKey()); with == 0 {
				t.Errorf("the session with %s's device is gone", p.ID())
			}
		}
	})
}

// Each message that cannot be read has mautrix remember that there is no session with its key.
func TestMachine_MessagesFromKeysThatSomebodyMakesUp_AreNotRememberedForEver(t *testing.T) {
	w, bot, room, h := prepared(t)
	w.with(func(*crypto.Options) {})
	crypto.RememberSenders(w.crypto, 20)
	for range 50 {
		var key [32]byte
		_, _ = rand.Read(key[:])
		content := object(json.RawMessage(h.encrypt(h.payload(w.roomKey(room))).Raw))["content"].(fields)
		content["sender_key"] = base64.RawStdEncoding.EncodeToString(key[:])
		if err := w.crypto.HandleKeys(t.Context(), h.message(content)); !errors.Is(err, crypto.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	if n, err := crypto.Senders(t.Context(), w.crypto, bot); err != nil || n > 20 {
		t.Errorf("%d keys are remembered; %v", n, err)
	}
	key := w.roomKey(room)
	w.takes(h, key, nil)
	w.readsAs(w.alice.sealedWith(key, "$1", "good"), bot, "good")
}

func TestWithheldNotices_ThatSomebodyMakesUp_FillTheDatabaseWithNoMoreThanTheNewest(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		crypto.KeepUnread(w.crypto, 10)
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		h := w.hand(w.alice, bot)
		key := w.roomKey(room)
		w.takes(h, key, nil)
		notice := func(sender id.UserID, session id.SessionID) *appservice.Event {
			raw, _ := json.Marshal(fields{"content": fields{"algorithm": id.AlgorithmMegolmV1, "session_id": session, "room_id": room, "code": "m.unverified"}})
			return &appservice.Event{Kind: store.KindToDevice, Type: "m.room_key.withheld", Sender: sender, ToUserID: bot, ToDeviceID: h.device.DeviceID, Raw: raw}
		}
		w.no(w.crypto.HandleKeys(t.Context(), notice(w.alice.ID(), w.roomKey(room).ID())))
		var last id.SessionID
		for range 40 {
			last = w.roomKey(room).ID()
			w.no(w.crypto.HandleKeys(t.Context(), notice("@eve:hs.test", last)))
		}
		keys, err := w.store.Foreign()
		w.no(err)
		var ofEve, ofAlice, newest int
		w.no(keys.QueryRow(t.Context(), `SELECT SUM(CASE WHEN source_user = '@eve:hs.test' THEN 1 ELSE 0 END), SUM(CASE WHEN source_user = $1 THEN 1 ELSE 0 END),
			SUM(CASE WHEN session_id = $2 THEN 1 ELSE 0 END) FROM crypto_megolm_inbound_session`, w.alice.ID(), last).Scan(&ofEve, &ofAlice, &newest))
		if ofEve != 10 || ofAlice != 2 || newest != 1 {
			t.Errorf("%d of Eve's notices are kept, %d of the last; %d of Alice's keys and notices", ofEve, newest, ofAlice)
		}
		w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
	})
}
