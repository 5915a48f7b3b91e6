//go:build goolm

package crypto_test

import (
	"testing"

	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestCrypto_MessagesBothWays_AreRead(t *testing.T) { bothWays(t, newWorld(t)) }

// PostgreSQL takes JSON, times and lists from mautrix's store in ways of its own.
func TestCrypto_MessagesBothWaysOnPostgreSQL_AreRead(t *testing.T) {
	w := newWorldOn(t, storetest.Open(t, storetest.Postgres(t), store.Options{}))
	bothWays(t, w)
	keys, err := w.store.Foreign()
	w.no(err)
	sql := olm.NewSQLCryptoStore(keys, nil, "", "", pickleKey)
	tracked, err := sql.FilterTrackedUsers(t.Context(), []id.UserID{w.alice.ID(), "@nobody:hs.test"})
	if err != nil || len(tracked) != 1 || tracked[0] != w.alice.ID() {
		t.Errorf("tracked are %v, %v", tracked, err)
	}
}

func bothWays(t *testing.T, w *world) {
	ctx, bot := t.Context(), w.as.Bot().UserID()
	w.no(w.crypto.Prepare(ctx, bot))
	room := w.room(bot)

	w.alice.say(room, "to the bridge", bot)
	w.opens(w.next(), bot, "to the bridge") // its key comes in another lane

	sealed, err := w.crypto.Seal(ctx, crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("from the bridge")})
	w.no(err)
	_, err = w.as.Bot().SendMessage(ctx, room, event.EventEncrypted, sealed, "txn")
	w.no(err)
	events := w.alice.sync(room)
	if len(events) == 0 {
		t.Fatal("no event came")
	}
	read, err := w.alice.olm.DecryptMegolmEvent(ctx, events[len(events)-1])
	w.no(err)
	if text(read) != "from the bridge" {
		t.Errorf("the person read %q", text(read))
	}
}
