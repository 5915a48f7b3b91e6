//go:build goolm

package crypto_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// changes runs a statement on the keys behind everybody's back.
func (w *world) changes(query string, args ...any) {
	w.t.Helper()
	keys, err := w.store.Foreign()
	w.no(err)
	storetest.Commit(w.t, w.store, func(tx *store.Tx) error {
		_, err := keys.Exec(tx.Context(w.t.Context()), query, args...)
		return err
	})
}

// The bridge writes with a session that others have begun while it is deleted as one of too many.
func TestOlmSession_OneOfTooManyThatIsDeletedWhileItIsUsed_IsThereWithItsStep(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		h := w.hand(w.alice, bot)
		send := func() {
			t.Helper()
			p := h.payload(w.roomKey(room))
			delete(p, "sender_device_keys")
			w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
		}
		send()
		signing, key := w.alice.olm.GetAccount().Keys()
		account := fmt.Sprint(bot, "/", h.device.DeviceID)
		for range 2 { // the second time it is noted already
			typ, body, err := crypto.Step(t.Context(), w.crypto, bot, key, signing, func() {
				storetest.Commit(t, w.store, func(tx *store.Tx) error { return tx.DeleteOlmSessionsBegun(account, string(w.alice.ID()), 0) })
				w.changes(`DELETE FROM crypto_olm_session`)
			})
			w.no(err)
			if _, err := h.session.Decrypt(string(body), typ); err != nil {
				t.Fatal(err)
			}
			w.reopen()
			send()
			if with, _ := w.sessions(key); with != 1 {
				t.Errorf("there are %d sessions", with)
			}
			if n := w.count(`SELECT COUNT(*) FROM olm_begun WHERE account = $1 AND session = $2`, account, h.session.ID()); n != 1 {
				t.Errorf("it is noted %d times as one with nobody's device", n)
			}
		}
	})
}

// The bridge has begun the session, with a device that is gone since, and has not used it for long; it is swept when it is used once more.
func TestOlmSession_ThatIsSweptWhileItIsUsed_IsThereAsTheOneWithTheSameDevice(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		_, err := w.seal(bot, room, "x")
		w.no(err)
		signing, key := w.alice.olm.GetAccount().Keys()
		claimed := func() int { return w.count(`SELECT COUNT(*) FROM olm_claimed WHERE signing_key = $1`, signing) }
		if claimed() != 1 {
			t.Fatal("it is not noted whose one-time key was claimed, and this shows nothing")
		}
		made := time.Now().Add(-100 * 24 * time.Hour).UTC().Truncate(time.Second)
		w.changes(`UPDATE crypto_olm_session SET created_at = $1, last_decrypted = $1, last_encrypted = $1`, made)
		w.reopen()
		w.settle()
		w.changes(`UPDATE crypto_device SET deleted = true WHERE user_id = $1`, w.alice.ID())
		w.changes(`UPDATE crypto_tracked_user SET devices_outdated = false`)
		_, _, err = crypto.Step(t.Context(), w.crypto, bot, key, signing, func() {
			w.no(w.store.Prune(t.Context()))
			if with, _ := w.sessions(key); with != 0 || claimed() != 0 {
				t.Fatal("nothing was swept, and this shows nothing")
			}
		})
		w.no(err)
		if with, _ := w.sessions(key); with != 1 || claimed() != 1 {
			t.Errorf("there are %d sessions, and %d notes of whose they are", with, claimed())
		}
		_, _, err = crypto.Step(t.Context(), w.crypto, bot, key, signing, func() {}) // a step alone changes nothing else
		w.no(err)
		keys, err := w.store.Foreign()
		w.no(err)
		var at time.Time
		w.no(keys.QueryRow(t.Context(), `SELECT created_at FROM crypto_olm_session WHERE sender_key = $1`, key).Scan(&at))
		if !at.Equal(made) {
			t.Errorf("it is of %s, and not of %s", at, made)
		}
	})
}
