//go:build goolm

package crypto_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// bare is a homeserver whose transactions have nothing about keys, as Synapse without experimental features.
var bare = bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true}

// syncs are the requests of devices for their keys.
func (w *world) syncs() []bridgetest.Request {
	return w.hs.Requests(func(r bridgetest.Request) bool { return strings.HasSuffix(r.Path, "/sync") && r.User != w.alice.ID() })
}

// opens waits until an event can be read.
func (w *world) opens(ev *appservice.Event, reader id.UserID, want string) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		opened, err := w.crypto.Open(w.t.Context(), ev, reader)
		switch {
		case err == nil && text(opened) == want:
			return
		case err == nil, !errors.Is(err, crypto.ErrNoKey), time.Now().After(deadline):
			w.t.Fatalf("%q, %v", text(opened), err)
		}
	}
}

func TestK4_TransactionsBringNothing_DevicesAskWithSync(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bare)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	w.alice.say(room, "for the bridge", bot)
	w.opens(w.next(), bot, "for the bridge")
	asked := w.syncs()
	if len(asked) == 0 {
		t.Fatal("nobody has asked with /sync")
	}
	for _, r := range asked {
		if r.User != bot || r.Query.Get("device_id") == "" || !strings.Contains(r.Query.Get("filter"), `"rooms":[]`) || r.Query.Get("set_presence") != "offline" {
			t.Errorf("asked as %s: %v", r.User, r.Query)
		}
	}
}

func TestK4_TransactionsBringEverything_NobodyAsks(t *testing.T) {
	w := newWorld(t)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	for range 5 {
		w.alice.say(room, "for the bridge", bot)
		ev := w.next()
		for w.handed.Load() == 0 { // a message that is faster than its key has the device ask
			time.Sleep(time.Millisecond)
		}
		w.opens(ev, bot, "for the bridge")
	}
	for messages, counts := w.as.CarriedKeys(); messages < 2 || counts == 0; messages, counts = w.as.CarriedKeys() { // the room key, and the probe
		time.Sleep(10 * time.Millisecond)
	}
	if asked := w.syncs(); len(asked) > 0 {
		t.Errorf("%d requests of /sync", len(asked))
	}
}

func TestK4_RestartWhileMessagesWait_GoesOnWhereItWas(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bare)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	w.alice.say(room, "before", bot)
	w.opens(w.next(), bot, "before")
	for len(w.syncs()) < 2 { // the second has acknowledged what the first brought
		time.Sleep(10 * time.Millisecond)
	}
	w.no(w.crypto.Close())
	before := len(w.syncs())
	w.alice.olm.CryptoStore.RemoveOutboundGroupSession(t.Context(), room)
	w.alice.say(room, "meanwhile", bot)
	ev := w.next()
	w.reopen()
	w.opens(ev, bot, "meanwhile")
	if first := w.syncs()[before]; first.Query.Get("since") == "" {
		t.Error("the first request after the restart began anew")
	}
}

func TestK4_SynapseDroppedAKeyWhileTheBridgeWasDown_SyncBringsIt(t *testing.T) {
	w := newWorld(t)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	w.no(w.hs.Settle(t.Context()))
	w.hs.PushFault(bridgetest.PushFault{CutRequest: true, Times: 2})
	w.alice.say(room, "its key was dropped", bot)
	ev := w.next()
	w.opens(ev, bot, "its key was dropped")
	if len(w.syncs()) == 0 {
		t.Error("the key came by another way, and this shows nothing")
	}
}

func TestK4_TheFirstMessageToItselfWasDropped_NobodyAsksOnceTransactionsBringKeysAllTheSame(t *testing.T) {
	w := newWorld(t)
	w.with(func(o *crypto.Options) { o.Sync = crypto.SyncAuto; crypto.ProbeOften(o) })
	bot := w.as.Bot().UserID()
	w.hs.PushFault(bridgetest.PushFault{CutRequest: true, Times: 3}) // as while the bridge was off: what is for devices is dropped
	_, err := w.alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{bot}})
	w.no(err)
	w.no(w.crypto.Prepare(t.Context(), bot))
	for len(w.syncs()) == 0 { // it was found that nothing comes
		time.Sleep(10 * time.Millisecond)
	}
	room := w.room(bot)
	for n := range 30 {
		w.alice.olm.CryptoStore.RemoveOutboundGroupSession(t.Context(), room)
		words := fmt.Sprint("for the bridge ", n)
		w.alice.say(room, words, bot)
		w.opens(w.next(), bot, words)
	}
	time.Sleep(time.Second) // what is under way ends
	before := len(w.syncs())
	for n := range 5 {
		w.alice.olm.CryptoStore.RemoveOutboundGroupSession(t.Context(), room)
		words := fmt.Sprint("once more ", n)
		w.alice.say(room, words, bot)
		w.opens(w.next(), bot, words)
	}
	for _, r := range w.syncs()[before:] {
		if r.Query.Get("timeout") != "0" { // with 0 it asks once, for a message that was faster than its key
			t.Errorf("the bot asks with /sync all the same: %v", r.Query)
		}
	}
}

func TestK4_TurnedOff_NobodyAsks(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bare)
	w.no(w.crypto.Close())
	c, err := crypto.New(t.Context(), crypto.Options{Store: w.store, AS: w.as, PickleKey: pickleKey, Sync: crypto.SyncNever})
	w.no(err)
	w.crypto = c
	t.Cleanup(func() { _ = c.Close() })
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	w.alice.say(room, "for the bridge", bot)
	if _, err := w.crypto.Open(t.Context(), w.next(), bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("got %v", err)
	}
	if asked := w.syncs(); len(asked) > 0 {
		t.Errorf("%d requests of /sync", len(asked))
	}
}

func TestK4_C18_HomeserverWithoutMasquerading_TheDeviceUsesItsOwnTokenForKeysAlone(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bridgetest.Dendrite)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	w.alice.say(room, "for the bridge", bot)
	w.opens(w.next(), bot, "for the bridge")
	w.reopen()
	sealed, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("from the bridge")})
	w.no(err)
	_, err = w.as.Bot().SendMessage(t.Context(), room, event.EventEncrypted, sealed, "txn")
	w.no(err)
	if devices, logins := w.hs.Devices(bot), w.hs.Logins(bot); len(devices) != 1 || logins != 1 {
		t.Errorf("%d devices and %d logins", len(devices), logins)
	}
	own := 0
	for _, r := range w.hs.Requests(func(r bridgetest.Request) bool { return r.User == bot && r.AppService == "" && r.Status != 0 }) {
		own++
		if !strings.Contains(r.Path, "/keys/") && !strings.HasSuffix(r.Path, "/sync") && !strings.Contains(r.Path, "/sendToDevice/") && !strings.HasSuffix(r.Path, "/logout") {
			t.Errorf("%s %s was asked for with the device's own token", r.Method, r.Path)
		}
		if r.Query.Has("user_id") || r.Query.Has("device_id") {
			t.Errorf("%s %s names a user beside the device's own token", r.Method, r.Path)
		}
	}
	if own == 0 {
		t.Error("the device has used no token of its own")
	}
	w.no(w.as.Bot().RemoveDevice(t.Context()))
	if devices := w.hs.Devices(bot); len(devices) != 0 {
		t.Errorf("after its removal there are the devices %v", devices)
	}
}
