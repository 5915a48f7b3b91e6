//go:build goolm

package crypto_test

import (
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestRoomKey_ThatIsUsed_StaysAYearFromThenOn(t *testing.T) {
	w, bot, room, h := prepared(t)
	w.with(func(*crypto.Options) {})
	used, idle := w.roomKey(room), w.roomKey(room)
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(used))))
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(idle))))
	foreign, err := w.store.Foreign()
	w.no(err)
	storetest.Commit(t, w.store, func(tx *store.Tx) error { // as if a year had gone by
		_, err := foreign.Exec(tx.Context(t.Context()), `UPDATE crypto_megolm_inbound_session SET received_at = $1`, time.Now().Add(-366*24*time.Hour))
		return err
	})
	if _, err := w.crypto.Open(t.Context(), w.alice.sealedWith(used, "$1", "one"), bot); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.no(w.store.Prune(t.Context()))
	if _, err := w.crypto.Open(t.Context(), w.alice.sealedWith(used, "$2", "two"), bot); err != nil {
		t.Error(err)
	}
	if _, err := w.crypto.Open(t.Context(), w.alice.sealedWith(idle, "$3", "three"), bot); err == nil {
		t.Error("a key that nobody has used for a year is there")
	}
}
