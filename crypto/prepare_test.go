//go:build goolm

package crypto_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/goolm/account"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

func TestPrepare_Again_CostsNothingAndInTheNextProcessOneQuestion(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	if n := w.requests("/keys/"); n != 3 { // a query, the cross-signing keys, the device's
		t.Errorf("%d requests for keys", n)
	}
	for range 3 {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	if n := w.requests("/keys/"); n != 3 {
		t.Errorf("%d requests for keys", n)
	}
	before := w.keysOf(ghost)
	w.with(func(*crypto.Options) {})
	w.no(w.crypto.Prepare(t.Context(), ghost))
	if n := w.requests("/keys/"); n != 4 {
		t.Errorf("%d requests for keys after the restart", n)
	}
	if after := w.keysOf(ghost); fmt.Sprint(after.MasterKeys, after.DeviceKeys) != fmt.Sprint(before.MasterKeys, before.DeviceKeys) {
		t.Error("the keys are others")
	}
}

func TestPrepare_AtOnce_MakesOneIdentity(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if err := w.crypto.Prepare(t.Context(), ghost); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := w.requests("/keys/device_signing/upload"); n != 1 || len(w.hs.Devices(ghost)) != 1 || w.keysLeft(ghost) != crypto.OutstandingKeys {
		t.Errorf("%d uploads, devices %v, %d keys", n, w.hs.Devices(ghost), w.keysLeft(ghost))
	}
}

func TestPrepare_DeviceThatIsGone_BecomesAnotherOneOfTheSameIdentity(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	old, before := w.device(ghost), w.keysOf(ghost)
	cli := w.as.Ghost(ghost).Client("")
	_, err := cli.MakeRequest(t.Context(), http.MethodDelete, cli.BuildClientURL("v3", "devices", old), struct{}{}, nil)
	w.no(err)
	w.reopen()
	w.no(w.crypto.Prepare(t.Context(), ghost))
	after := w.keysOf(ghost)
	if w.device(ghost) == old || len(after.DeviceKeys[ghost]) != 1 || fmt.Sprint(after.MasterKeys) != fmt.Sprint(before.MasterKeys) {
		t.Errorf("device %s, was %s; %+v", w.device(ghost), old, after)
	}
	if after.DeviceKeys[ghost][w.device(ghost)].Keys.GetEd25519(w.device(ghost)) == before.DeviceKeys[ghost][old].Keys.GetEd25519(old) {
		t.Error("another device has the same account")
	}
	if n := len(after.DeviceKeys[ghost][w.device(ghost)].Signatures[ghost]); n != 2 {
		t.Errorf("%d signatures", n)
	}
}

func TestJ3_StoreThatHasLostADevicesKeys_GetsAnotherDevice(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	device, err := w.as.Ghost(ghost).EnsureDevice(t.Context())
	w.no(err)
	// Another store had prepared it.
	cli := w.as.Ghost(ghost).Client(device)
	other := olm.NewOlmMachine(cli, nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	w.no(other.Load(t.Context()))
	w.no(other.ShareKeys(t.Context(), 0))
	w.no(w.crypto.Prepare(t.Context(), ghost))
	if w.device(ghost) == device || len(w.hs.Devices(ghost)) != 1 {
		t.Errorf("devices %v; it was %s", w.hs.Devices(ghost), device)
	}
}

func TestJ4_CountOfNoneOrNothing_IsToppedUpAtOnce(t *testing.T) {
	for name, count := range map[string]string{"none": `{"signed_curve25519":0}`, "nothing": `{}`, "few": `{"signed_curve25519":25}`} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ghost := w.ghost("ann")
			w.no(w.crypto.Prepare(t.Context(), ghost))
			for range 10 {
				w.claim(ghost, w.device(ghost))
			}
			w.no(w.counts(fmt.Sprintf(`{"device_one_time_keys_count":{%q:{%q:%s}}}`, ghost, w.device(ghost), count)))
			if n := w.keysLeft(ghost); n != crypto.OutstandingKeys {
				t.Errorf("%d keys", n)
			}
		})
	}
}

// Synapse counts cross-signing keys as devices, and what it tells may be older than an upload: it is asked again, and no key too many is made.
func TestJ2_CountsThatAreOldOrOfOthers_MakeNoKeyTooMany(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	master := w.keysOf(ghost).MasterKeys[ghost]
	before := w.requests("/keys/upload")
	w.no(w.counts(fmt.Sprintf(`{"device_one_time_keys_count":{%q:{%q:{},"NOTOURS":{}},"@nobody:hs.test":{"X":{}},%q:{%q:{}}}}`,
		ghost, master.FirstKey(), w.alice.ID(), w.alice.DeviceID())))
	if n := w.requests("/keys/upload") - before; n != 0 {
		t.Errorf("%d uploads for others", n)
	}
	w.no(w.counts(fmt.Sprintf(`{"device_one_time_keys_count":{%q:{%q:{"signed_curve25519":3}}}}`, ghost, w.device(ghost))))
	if n := w.keysLeft(ghost); n != crypto.OutstandingKeys {
		t.Errorf("%d keys after an old count", n)
	}
	w.no(w.counts(fmt.Sprintf(`{"device_one_time_keys_count":{%q:{%q:{"signed_curve25519":40}}}}`, ghost, w.device(ghost))))
	if n := w.requests("/keys/upload") - before; n != 2 { // one that asks, and that of keysLeft
		t.Errorf("%d uploads; with enough keys there is none", n)
	}
}

func TestJ5_FallbackKeyThatWasHandedOut_IsReplacedAfterATransactionTells(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	device := w.device(ghost)
	drain := func() mautrix.OneTimeKey {
		for range w.keysLeft(ghost) {
			w.claim(ghost, device)
		}
		return w.claim(ghost, device)
	}
	first := drain()
	w.no(w.counts(fmt.Sprintf(`{"device_unused_fallback_key_types":{%q:{%q:["signed_curve25519"]}}}`, ghost, device)))
	if again := drain(); again.Key != first.Key || !first.Fallback {
		t.Errorf("it was replaced although it is unused: %+v", again)
	}
	w.no(w.counts(fmt.Sprintf(`{"device_unused_fallback_key_types":{%q:{%q:[]}}}`, ghost, device)))
	if next := drain(); next.Key == first.Key || !next.Fallback {
		t.Errorf("%+v", next)
	}
}

func TestJ3_MessageForAKeyThatIsNotHere_HasTheKeysReplaced(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	w.no(w.crypto.Spoil(t.Context(), ghost, func(a *account.Account) { a.OTKeys = nil })) // the store was put back
	room := w.room(ghost)
	before := w.requests("/keys/claim")
	w.alice.say(room, "lost", ghost)
	w.settle()
	deadline := time.Now().Add(30 * time.Second)
	for w.requests("/keys/claim")-before < crypto.OutstandingKeys+1 || w.keysLeft(ghost) != crypto.OutstandingKeys || w.requests("/sendToDevice/m.room.encrypted/") == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d keys, %d claims", w.keysLeft(ghost), w.requests("/keys/claim")-before)
		}
		time.Sleep(20 * time.Millisecond)
	}
	memory := w.alice.olm.CryptoStore.(*olm.MemoryStore)
	memory.OutGroupSessions = map[id.RoomID]*olm.OutboundGroupSession{}
	memory.Sessions = map[id.SenderKey]olm.OlmSessionList{} // this store of mautrix's would take the oldest
	w.alice.sync(room)                                      // hears the new Olm session
	w.next()
	w.alice.say(room, "found", ghost)
	for {
		ev := w.next()
		if opened, err := w.crypto.Open(t.Context(), ev, ghost); err == nil && text(opened) == "found" {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		w.events <- ev
	}
}

// The fallback key was replaced within the hour, and is not replaced again.
func TestJ4_NoneLeftSoonAfterANewFallbackKey_IsToppedUpAllTheSame(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	device := w.device(ghost)
	none := fmt.Sprintf(`{"device_one_time_keys_count":{%q:{%q:{"signed_curve25519":0}}},"device_unused_fallback_key_types":{%q:{%q:[]}}}`, ghost, device, ghost, device)
	for range 2 {
		for range w.keysLeft(ghost) + 1 {
			w.claim(ghost, device)
		}
		w.no(w.counts(none))
		if left := w.keysLeft(ghost); left != crypto.OutstandingKeys {
			t.Errorf("%d keys are left", left)
		}
	}
}

// The homeserver takes no keys of one device, which was deleted there meanwhile. The counts of all devices are in one lane.
func TestJ4_DeviceThatTheHomeserverRefuses_KeepsNoOtherFromItsKeys(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	gone, ghost := w.ghost("gone"), w.ghost("ann")
	for _, user := range []id.UserID{gone, ghost} {
		w.no(w.crypto.Prepare(t.Context(), user))
	}
	cli := w.as.Ghost(gone).Client("")
	_, err := cli.MakeRequest(t.Context(), http.MethodDelete, cli.BuildClientURL("v3", "devices", w.device(gone)), struct{}{}, nil)
	w.no(err)
	for range 40 {
		w.claim(ghost, w.device(ghost))
	}
	if err := w.counts(fmt.Sprintf(`{"device_one_time_keys_count":{%q:{%q:{}},%q:{%q:{}}}}`, gone, w.device(gone), ghost, w.device(ghost))); err != nil {
		t.Errorf("what is behind it waits: %v", err)
	}
	if n := w.keysLeft(ghost); n != crypto.OutstandingKeys {
		t.Errorf("%d keys", n)
	}
}
