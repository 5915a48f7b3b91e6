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

// What counts for each pair of a device and a user is forgotten when there are too many of them, and then nothing is ever looked at.
func TestRoomKeys_OfMoreUsersThanCanBeRemembered_AreLookedAtAllTheSame(t *testing.T) {
	const users, keys, pace = 10_500, 200, 10
	looked := 0
	for range users * keys {
		if crypto.Many(pace) {
			looked++
		}
	}
	if want := users * keys / pace; looked < want*9/10 || looked > want*11/10 { // a hundred times what chance would make of it
		t.Errorf("looked at %d times, not about %d", looked, want)
	}
}
