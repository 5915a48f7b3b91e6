//go:build goolm

package crypto_test

import (
	"fmt"
	"testing"

	olm "maunium.net/go/mautrix/crypto"

	"github.com/trestle-bridge/trestle/crypto"
)

func TestRoomKeys_ThatSomebodyMakesUp_FillTheDatabaseWithNoMoreThanTheNewest(t *testing.T) {
	w, bot, room, h := prepared(t)
	w.with(func(*crypto.Options) {})
	crypto.KeepUnread(w.crypto, 10)
	var keys []*olm.OutboundGroupSession
	for n := range 40 {
		key := w.roomKey(room)
		keys = append(keys, key)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
		if n < 3 { // those are used
			if _, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, fmt.Sprint("$used", n), "x"), bot); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n, key := range keys {
		_, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, fmt.Sprint("$", n), "x"), bot)
		if want := n < 3 || n >= 30; (err == nil) != want {
			t.Errorf("key %d: %v", n, err)
		}
	}
}
