//go:build goolm

package crypto_test

import (
	"testing"

	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/crypto"
)

func TestCrypto_MessagesBothWays_AreRead(t *testing.T) {
	w := newWorld(t)
	ctx, bot := t.Context(), w.as.Bot().UserID()
	w.no(w.crypto.Prepare(ctx, bot))
	room := w.room(bot)

	w.alice.say(room, "to the bridge", bot)
	opened, err := w.crypto.Open(ctx, w.next(), bot)
	w.no(err)
	if text(opened) != "to the bridge" {
		t.Errorf("the bridge read %q", text(opened))
	}

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
