//go:build goolm

package crypto_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// bare is a homeserver whose transactions have nothing about keys. A Synapse without experimental features, which answers /sync to ghosts alone, is bareSynapse.
var (
	bare        = bridgetest.Options{Personality: bridgetest.Tuwunel, NoToDevice: true, NoDeviceExtensions: true}
	bareSynapse = bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true}
)

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

// The bot of a Synapse asks for nothing; people give their keys to the ghost in the room as well, which does.
func TestK4_SynapseDroppedAKeyWhileTheBridgeWasDown_SyncBringsIt(t *testing.T) {
	w := newWorld(t)
	bot, ghost := w.as.Bot().UserID(), w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(bot, ghost)
	w.no(w.hs.Settle(t.Context()))
	w.hs.PushFault(bridgetest.PushFault{CutRequest: true, Times: 2})
	w.alice.say(room, "its key was dropped", bot, ghost)
	ev := w.next()
	w.opens(ev, bot, "its key was dropped")
	if len(w.syncs()) == 0 {
		t.Error("the key came by another way, and this shows nothing")
	}
}

func TestK4_SynapseThatBringsNothing_AGhostStandsInForTheBot(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bareSynapse)
	bot, ghost := w.as.Bot().UserID(), w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room, without := w.room(bot, ghost), w.room(bot)
	w.alice.say(room, "for the bridge", bot, ghost)
	ev := w.next()
	w.opens(ev, bot, "for the bridge")
	var sealed struct {
		Content json.RawMessage `json:"content"`
	}
	w.no(json.Unmarshal(ev.Raw, &sealed))
	_, err := w.alice.Send(t.Context(), room, event.EventEncrypted.Type, sealed.Content)
	w.no(err)
	if _, err := w.crypto.Open(t.Context(), w.next(), bot); !errors.Is(err, crypto.ErrReplayed) {
		t.Errorf("a repetition: %v", err)
	}
	w.alice.say(without, "no ghost is here", bot)
	if _, err := w.crypto.Open(t.Context(), w.next(), bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("where no ghost is: %v", err)
	}
	for _, r := range w.syncs() {
		if r.User != ghost {
			t.Errorf("%s asks, which Synapse refuses", r.User)
		}
	}
	w.alice.olm.CryptoStore.RemoveOutboundGroupSession(t.Context(), room)
	w.alice.say(room, "its key was given to nobody")
	w.no(w.crypto.RequestKey(t.Context(), w.next(), bot))
	asking := map[id.UserID]int{}
	for _, r := range w.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/sendToDevice/m.room_key_request/") }) {
		asking[r.User]++
	}
	if len(asking) != 2 || asking[bot] != 1 || asking[ghost] != 1 {
		t.Errorf("the key is asked for by %v", asking)
	}
}

// The bot gets its keys before the appservice has started, which reads what the homeserver is.
func TestK4_SynapseThatBringsNothing_TheBotAsksNothingAfterARestart(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bareSynapse)
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.no(w.crypto.Close())
	w.no(w.as.Stop(t.Context()))
	as, err := appservice.New(appservice.Config{
		Registration: w.registration, HomeserverURL: w.hs.URL(), ServerName: w.hs.Domain(), Store: w.store, Handler: w,
	})
	w.no(err)
	w.as = as
	w.serve.Store(as)
	w.with(func(o *crypto.Options) { o.Sync = crypto.SyncAlways })
	w.no(w.crypto.Prepare(t.Context(), bot)) // before the start: the bot asks, whatever this is
	w.no(as.Start(t.Context()))
	t.Cleanup(func() { _ = as.Stop(context.Background()) })
	time.Sleep(time.Second) // what is under way ends
	before := len(w.syncs())
	time.Sleep(4 * time.Second) // the pause after what failed was 1 s, and then 2
	for _, r := range w.syncs()[before:] {
		t.Errorf("%s asks, which Synapse refuses", r.User)
	}
}

// An administrator has deactivated it, say: it has no device any more, and gets none.
func TestK4_GhostThatWouldStandInGetsNoDevice_AnotherDoes_AndNothingFails(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bareSynapse)
	bot, gone, ghost := w.as.Bot().UserID(), w.ghost("ann"), w.ghost("bea")
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.no(w.crypto.Prepare(t.Context(), gone))
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room, alone := w.room(bot, gone, ghost), w.room(bot, gone)
	w.no(w.as.Ghost(gone).RemoveDevice(t.Context()))
	w.hs.Fault(bridgetest.Fault{Method: "PUT", Path: regexp.MustCompile("/devices/"), Status: http.StatusForbidden, ErrCode: "M_USER_DEACTIVATED", Times: -1})
	w.alice.say(room, "for the bridge", bot, ghost)
	w.opens(w.next(), bot, "for the bridge")
	w.alice.say(alone, "nobody can read this")
	ev := w.next()
	if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("where there is no other: %v", err)
	}
	if _, err := w.crypto.Watch(t.Context(), ev, "a session", bot); err != nil {
		t.Errorf("nor can it be waited for: %v", err)
	}
	if err := w.crypto.RequestKey(t.Context(), ev, bot); err != nil {
		t.Errorf("nor asked for: %v", err)
	}
}

// It has a new device, and its keys will be made when it speaks.
func TestRequestKey_GhostThatWouldStandInHasNoKeys_TheBotAsksAllTheSame(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bareSynapse)
	bot, ghost := w.as.Bot().UserID(), w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(bot, ghost)
	w.no(w.as.Ghost(ghost).RemoveDevice(t.Context()))
	w.alice.say(room, "its key was given to nobody")
	w.no(w.crypto.RequestKey(t.Context(), w.next(), bot))
	if asked := w.hs.Requests(func(r bridgetest.Request) bool {
		return r.User == bot && strings.Contains(r.Path, "/sendToDevice/m.room_key_request/")
	}); len(asked) != 1 {
		t.Errorf("the bot has asked %d times", len(asked))
	}
}

// A message that waits for its key is taken up when the one who stands in has it.
func TestK4_KeyOfWhoStandsIn_IsSeenByWhoWatchesForIt(t *testing.T) {
	w := newWorldOn(t, storetest.New(t), bareSynapse)
	w.with(func(*crypto.Options) {}) // nobody asks by himself
	bot, ghost := w.as.Bot().UserID(), w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), bot))
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(bot, ghost)
	w.alice.say(room, "for the bridge", bot, ghost)
	ev := w.next()
	var sealed struct {
		Content struct {
			Session id.SessionID `json:"session_id"`
		} `json:"content"`
	}
	w.no(json.Unmarshal(ev.Raw, &sealed))
	changed, err := w.crypto.Watch(t.Context(), ev, sealed.Content.Session, bot)
	w.no(err)
	look := func() (is bool) {
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) (err error) { is, err = changed(tx); return err }))
		return is
	}
	if look() {
		t.Error("before it came")
	}
	device, err := w.as.Ghost(ghost).KeyDevice(t.Context())
	w.no(err)
	_, err = w.as.Ghost(ghost).SyncKeys(t.Context(), device, "", 0)
	w.no(err)
	for deadline := time.Now().Add(20 * time.Second); !look(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not seen")
		}
	}
	w.opens(ev, bot, "for the bridge")
}

func TestK4_TheFirstMessageToItselfWasDropped_NobodyAsksOnceTransactionsBringKeysAllTheSame(t *testing.T) {
	w := newWorld(t)
	w.with(func(o *crypto.Options) { o.Sync = crypto.SyncAuto; crypto.ProbeOften(o) })
	ann := w.ghost("ann")                                            // she reads: a bot of Synapse never asks
	w.hs.PushFault(bridgetest.PushFault{CutRequest: true, Times: 3}) // as while the bridge was off: what is for devices is dropped
	_, err := w.alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{ann}})
	w.no(err)
	w.no(w.crypto.Prepare(t.Context(), ann))
	for len(w.syncs()) == 0 { // it was found that nothing comes
		time.Sleep(10 * time.Millisecond)
	}
	room := w.room(ann)
	for n := range 30 {
		w.alice.olm.CryptoStore.RemoveOutboundGroupSession(t.Context(), room)
		words := fmt.Sprint("for the bridge ", n)
		w.alice.say(room, words, ann)
		w.opens(w.next(), ann, words)
	}
	time.Sleep(time.Second) // what is under way ends
	before := len(w.syncs())
	for n := range 5 {
		w.alice.olm.CryptoStore.RemoveOutboundGroupSession(t.Context(), room)
		words := fmt.Sprint("once more ", n)
		w.alice.say(room, words, ann)
		w.opens(w.next(), ann, words)
	}
	for _, r := range w.syncs()[before:] {
		if r.Query.Get("timeout") != "0" { // with 0 it asks once, for a message that was faster than its key
			t.Errorf("she asks with /sync all the same: %v", r.Query)
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
