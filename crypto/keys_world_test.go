//go:build goolm

package crypto_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/goolm/account"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// keysOf is what the homeserver says of a user's keys, to somebody.
func (w *world) keysOf(user id.UserID) *mautrix.RespQueryKeys {
	w.t.Helper()
	resp, err := w.alice.client.QueryKeys(w.t.Context(), &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {}}})
	w.no(err)
	return resp
}

// device is the one that the store knows of a ghost.
func (w *world) device(user id.UserID) id.DeviceID {
	w.t.Helper()
	g, err := w.store.Ghost(w.t.Context(), string(user))
	w.no(err)
	return id.DeviceID(g.DeviceID)
}

// keysLeft is how many one-time keys the homeserver has of a ghost's device.
func (w *world) keysLeft(user id.UserID) int {
	w.t.Helper()
	resp, err := w.as.Ghost(user).Client(w.device(user)).UploadKeys(w.t.Context(), &mautrix.ReqUploadKeys{})
	w.no(err)
	return resp.OneTimeKeyCounts.SignedCurve25519
}

func (w *world) claim(user id.UserID, device id.DeviceID) (key mautrix.OneTimeKey) {
	w.t.Helper()
	resp, err := w.alice.client.ClaimKeys(w.t.Context(), &mautrix.ReqClaimKeys{
		OneTimeKeys: mautrix.OneTimeKeysRequest{user: {device: id.KeyAlgorithmSignedCurve25519}},
	})
	w.no(err)
	for _, key = range resp.OneTimeKeys[user][device] {
	}
	return key
}

// with gives the bridge's Crypto other options. Nothing but what the test does asks the homeserver then.
func (w *world) with(change func(o *crypto.Options)) {
	w.t.Helper()
	w.no(w.crypto.Close())
	o := crypto.Options{Store: w.store, AS: w.as, PickleKey: pickleKey, Sync: crypto.SyncNever}
	change(&o)
	c, err := crypto.New(w.t.Context(), o)
	w.no(err)
	w.crypto = c
	w.handles.Store(c)
	w.t.Cleanup(func() { _ = c.Close() })
}

// counts tells the bridge of key counts, as a transaction does.
func (w *world) counts(raw string) error {
	return w.crypto.HandleKeys(w.t.Context(), &appservice.Event{Kind: store.KindKeyCounts, Raw: json.RawMessage(raw)})
}

// signs gives the person cross-signing keys, and has the device signed by them.
func (p *person) signs() {
	p.w.t.Helper()
	keys, err := p.olm.GenerateCrossSigningKeys()
	p.w.no(err)
	p.w.no(p.olm.PublishCrossSigningKeys(p.w.t.Context(), keys, nil))
	p.w.no(p.olm.SignOwnDevice(p.w.t.Context(), p.olm.OwnIdentity()))
}

func (w *world) requests(path string) int {
	return len(w.hs.Requests(func(r bridgetest.Request) bool { return r.AppService != "" && strings.Contains(r.Path, path) }))
}

func (w *world) seal(user id.UserID, room id.RoomID, body string) (*event.EncryptedEventContent, error) {
	raw, err := w.crypto.Seal(w.t.Context(), crypto.Sealing{Room: room, Machine: user, Type: "m.room.message", Content: message(body)})
	if err != nil {
		return nil, err
	}
	content := new(event.EncryptedEventContent)
	return content, json.Unmarshal(raw, content)
}

// session is the ID of the session with which a ghost's next message is encrypted.
func (w *world) session(user id.UserID, room id.RoomID) id.SessionID {
	w.t.Helper()
	content, err := w.seal(user, room, "x")
	w.no(err)
	return content.SessionID
}

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

func TestI1_I6_OlmMessage_CarriesTheSelfSigningKeysSignatureAlsoAfterAReset(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	room := w.room(ghost)
	for _, what := range []string{"first", "after a reset"} {
		w.no(w.crypto.Prepare(t.Context(), ghost))
		_, err := w.seal(ghost, room, "x")
		w.no(err)
		self := w.keysOf(ghost).SelfSigningKeys[ghost]
		keys, err := w.crypto.SenderKeys(t.Context(), ghost)
		w.no(err)
		if _, there := keys.Signatures[ghost][id.NewKeyID(id.KeyAlgorithmEd25519, self.FirstKey().String())]; !there || len(keys.Signatures[ghost]) != 2 {
			t.Errorf("%s: %+v", what, keys.Signatures)
		}
		w.no(w.crypto.ResetCrossSigning(t.Context(), ghost))
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.DropAllRoomKeys() }))
	}
}

func TestI3_MessageOfADeviceThatIsGone_IsTrustedBySenderDeviceKeys(t *testing.T) {
	w := newWorld(t)
	w.alice.signs()
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.say(room, "hello", ghost)
	w.settle()
	ev := w.next()
	remove := w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool { // alice has logged out
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.Header.Get("Inner") != "" {
			return false
		}
		master, self := w.alice.olm.CrossSigningKeys.MasterKey, w.alice.olm.CrossSigningKeys.SelfSigningKey
		keys := map[string]any{"user_id": w.alice.ID(), "usage": []string{"self_signing"}, "keys": map[string]any{"ed25519:" + self.PublicKey().String(): self.PublicKey()}}
		signature, _ := master.SignJSON(keys)
		keys["signatures"] = map[string]any{string(w.alice.ID()): map[string]any{"ed25519:" + master.PublicKey().String(): signature}}
		_ = json.NewEncoder(rw).Encode(map[string]any{
			"device_keys": map[string]any{string(w.alice.ID()): map[string]any{}},
			"master_keys": map[string]any{string(w.alice.ID()): map[string]any{"user_id": w.alice.ID(), "usage": []string{"master"},
				"keys": map[string]any{"ed25519:" + master.PublicKey().String(): master.PublicKey()}}},
			"self_signing_keys": map[string]any{string(w.alice.ID()): keys},
		})
		return true
	})
	defer remove()
	opened, err := w.crypto.Open(t.Context(), ev, ghost)
	if err != nil || text(opened) != "hello" {
		t.Errorf("%v %v", opened, err)
	}
	devices, err := w.crypto.Devices(t.Context(), ghost, w.alice.ID())
	if err != nil || len(devices) != 0 {
		t.Errorf("a device that is gone is given keys: %v %v", devices, err)
	}
}

func TestTrust_DeviceThatItsOwnerHasNotSigned_IsNeitherReadNorWrittenTo(t *testing.T) {
	for _, signed := range []bool{false, true} {
		w := newWorld(t)
		ghost := w.ghost("ann")
		w.with(func(o *crypto.Options) { o.Receive, o.Send = crypto.TrustCrossSigned, crypto.TrustCrossSigned })
		w.no(w.crypto.Prepare(t.Context(), ghost))
		if signed {
			w.alice.signs()
		}
		room := w.room(ghost)
		w.alice.say(room, "hello", ghost)
		w.settle()
		opened, err := w.crypto.Open(t.Context(), w.next(), ghost)
		if signed != (err == nil && text(opened) == "hello") || !signed && !errors.Is(err, crypto.ErrUntrusted) {
			t.Errorf("signed %t: %v", signed, err)
		}
		sealed, err := w.seal(ghost, room, "back")
		w.no(err)
		w.alice.sync(room)
		_, err = w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, sealed.SessionID)
		if signed && err != nil || !signed && (err == nil || !strings.Contains(err.Error(), string(event.RoomKeyWithheldUnverified))) {
			t.Errorf("signed %t: alice has %v", signed, err)
		}
	}
}

func TestTrust_UserWithNewKeys_IsStillRead(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.signs()
	for _, body := range []string{"one", "two"} {
		w.alice.say(room, body, ghost)
		ev := w.next()
		w.no(w.crypto.Await(t.Context(), ghost, ev))
		opened, err := w.crypto.Open(t.Context(), ev, ghost)
		if err != nil || text(opened) != body {
			t.Errorf("%v %v", opened, err)
		}
		keys, err := w.store.Foreign()
		w.no(err)
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { // as if others had been there first
			_, err := keys.Exec(tx.Context(t.Context()), "UPDATE crypto_cross_signing_keys SET first_seen_key = 'another'")
			return err
		}))
	}
}

func TestParseTrust_IsWhatIsWritten(t *testing.T) {
	for _, trust := range []crypto.Trust{crypto.TrustAny, crypto.TrustCrossSigned, crypto.TrustVerified} {
		if got, err := crypto.ParseTrust(trust.String()); got != trust || err != nil {
			t.Errorf("%s: %s %v", trust, got, err)
		}
	}
	if got, err := crypto.ParseTrust(""); got != crypto.TrustCrossSigned || err != nil {
		t.Error(got, err)
	}
	if _, err := crypto.ParseTrust("tofu"); err == nil || !strings.Contains(err.Error(), "tofu") {
		t.Error(err)
	}
}

func TestDevices_ChangedSet_GivesAllGhostsANewKey(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.ghost("ann"), w.ghost("bob")
	for _, ghost := range []id.UserID{ann, bob} {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	room := w.room(ann, bob)
	annBefore := w.session(ann, room)
	if w.session(ann, room) != annBefore {
		t.Fatal("the key is not used again")
	}
	carol := newCarol(w, room)
	w.settle()
	annBefore, bobBefore := w.session(ann, room), w.session(bob, room)
	carol.gets("TWO")
	changed := &appservice.Event{Kind: store.KindDeviceLists, Raw: json.RawMessage(fmt.Sprintf(`{"changed":[%q]}`, carol.user))}
	w.no(w.crypto.HandleKeys(t.Context(), changed))
	if w.session(ann, room) == annBefore {
		t.Error("the ghost that asked uses the old key")
	}
	if w.session(bob, room) == bobBefore {
		t.Error("another ghost uses the old key")
	}
	if shared, err := w.crypto.Devices(t.Context(), ann, carol.user); err != nil || len(shared) != 2 {
		t.Errorf("%v %v", shared, err)
	}
	annBefore = w.session(ann, room)
	queries := w.requests("/keys/query")
	w.no(w.crypto.HandleKeys(t.Context(), changed))
	if w.session(ann, room) != annBefore || w.requests("/keys/query") != queries+1 {
		t.Error("the same devices have another key")
	}
}

// carol is somebody who has as many devices as she likes: her homeserver's business is done by another appservice.
type carol struct {
	w    *world
	user id.UserID
}

func newCarol(w *world, room id.RoomID) *carol {
	w.t.Helper()
	c := &carol{w, id.UserID("@people_carol:" + w.hs.Domain())}
	w.no(w.hs.AddRegistration(&bridgetest.Registration{
		ID: "people", ASToken: "people-secret", HSToken: "people-secret-too", SenderLocalpart: "people",
		Namespaces: bridgetest.Namespaces{Users: []bridgetest.Namespace{{Exclusive: true, Regex: "^@people_.*$"}}},
	}))
	cli := c.client("")
	_, err := cli.MakeRequest(w.t.Context(), http.MethodPost, cli.BuildClientURL("v3", "register"),
		map[string]any{"type": "m.login.application_service", "username": c.user.Localpart(), "inhibit_login": true}, nil)
	w.no(err)
	_, err = cli.JoinRoomByID(w.t.Context(), room)
	w.no(err)
	c.gets("ONE")
	return c
}

func (c *carol) client(device id.DeviceID) *mautrix.Client {
	cli, err := mautrix.NewClient(c.w.hs.URL(), c.user, "people-secret")
	c.w.no(err)
	cli.SetAppServiceUserID, cli.DeviceID, cli.SetAppServiceDeviceID = true, device, device != ""
	return cli
}

// gets gives her a device with keys.
func (c *carol) gets(device id.DeviceID) {
	c.w.t.Helper()
	cli := c.client("")
	_, err := cli.MakeRequest(c.w.t.Context(), http.MethodPut, cli.BuildClientURL("v3", "devices", device), map[string]any{}, nil)
	c.w.no(err)
	mach := olm.NewOlmMachine(c.client(device), nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	c.w.no(mach.Load(c.w.t.Context()))
	c.w.no(mach.ShareKeys(c.w.t.Context(), 0))
}

func TestDevices_AfterTheBridgeWasAway_AreAskedForAgain(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	carol := newCarol(w, room)
	w.settle()
	before := w.session(ghost, room)
	queries := w.requests("/keys/query")
	if w.session(ghost, room); w.requests("/keys/query") != queries {
		t.Error("they are asked for with each message")
	}
	carol.gets("TWO")
	w.settle()
	keys, err := w.store.Foreign()
	w.no(err)
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { // as if nobody had told
		_, err := keys.Exec(tx.Context(t.Context()), "UPDATE crypto_tracked_user SET devices_outdated = false")
		return err
	}))
	if w.session(ghost, room) != before {
		t.Fatal("it was told")
	}
	w.reopen()
	if w.session(ghost, room) == before {
		t.Error("a device that came meanwhile does not get the key")
	}
}

func TestM3_MembershipAndVisibility_MeanAnotherKey(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	bob := newPerson(w, "bob")
	before := w.session(ghost, room)
	for name, change := range map[string]func() error{
		"joins":  func() error { _, err := bob.Join(t.Context(), string(room)); return err },
		"leaves": func() error { return bob.Leave(t.Context(), room, "") },
		"visibility": func() error {
			return state(w.alice, room, "m.room.history_visibility", `{"history_visibility":"joined"}`)
		},
		"unknown": func() error { return state(w.alice, room, "m.room.history_visibility", `{"history_visibility":"odd"}`) },
	} {
		if name == "leaves" {
			if _, err := bob.Join(t.Context(), string(room)); err != nil {
				t.Fatal(err)
			}
			w.settle()
			before = w.session(ghost, room)
		}
		w.no(change())
		w.settle()
		after := w.session(ghost, room)
		if after == before {
			t.Errorf("%s: the same key", name)
		}
		before = after
		if name == "joins" {
			w.no(bob.Leave(t.Context(), room, ""))
			w.settle()
			before = w.session(ghost, room)
		}
	}
	w.no(bob.SetDisplayName(t.Context(), "Robert"))
	w.settle()
	if w.session(ghost, room) != before {
		t.Error("another name means another key")
	}
}

func state(p *person, room id.RoomID, typ, content string) error {
	_, err := p.SendState(p.w.t.Context(), room, typ, "", json.RawMessage(content))
	return err
}

// settle waits until the bridge has worked on all that the homeserver had to send.
func (w *world) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	w.no(w.hs.Settle(ctx))
	for {
		depth, err := w.store.Depth(ctx)
		w.no(err)
		if depth.OldestInbox.IsZero() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestM1_M2_M4_RoomKey_SaysWhetherHistoryIsShared(t *testing.T) {
	for visibility, shared := range map[string]bool{"world_readable": true, "shared": true, "invited": false, "joined": false, "odd": false, "": false} {
		w := newWorld(t)
		ghost := w.ghost("ann")
		w.no(w.crypto.Prepare(t.Context(), ghost))
		room := w.room(ghost)
		w.no(state(w.alice, room, "m.room.history_visibility", fmt.Sprintf(`{"history_visibility":%q}`, visibility)))
		w.settle()
		sealed, err := w.seal(ghost, room, "x")
		w.no(err)
		w.alice.sync(room)
		got, err := w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, sealed.SessionID)
		if err != nil || got == nil || (got.SharedHistory != nil && *got.SharedHistory) != shared {
			t.Errorf("%q: %+v %v", visibility, got, err)
		}
		w.alice.say(room, "y", ghost) // alice's rooms have no visibility: the key says nothing
		w.settle()
		received, err := w.crypto.Session(t.Context(), ghost, room, w.alice.encrypt(room, "z", ghost).SessionID)
		if err != nil || received == nil || received.SharedHistory != nil && *received.SharedHistory {
			t.Errorf("%q: a key without the flag: %+v %v", visibility, received, err)
		}
	}
}

func TestM5_KeyRequestOfAnotherUser_IsNotAnswered(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	session := w.session(ghost, room)
	bob := newPerson(w, "bob")
	before := w.requests("/sendToDevice/")
	for _, p := range []*person{bob, w.alice} {
		w.no(p.olm.SendRoomKeyRequest(t.Context(), room, "", session, "r"+p.ID().String(), map[id.UserID][]id.DeviceID{ghost: {w.device(ghost)}}))
		w.settle()
	}
	if n := w.requests("/sendToDevice/") - before; n != 0 {
		t.Errorf("%d answers", n)
	}
}

func TestKeyRequest_ToTheSender_BringsTheKeyThatWasLost(t *testing.T) {
	w := newWorld(t)
	w.alice.signs()
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.held.Store(true)
	w.alice.say(room, "hello", ghost)
	<-w.toward // the homeserver has dropped it
	w.held.Store(false)
	ev := w.next()
	if _, err := w.crypto.Open(t.Context(), ev, ghost); !errors.Is(err, crypto.ErrNoKey) {
		t.Fatal(err)
	}
	before := w.requests("/sendToDevice/m.room_key_request/")
	for range 3 {
		w.no(w.crypto.RequestKey(t.Context(), ev, ghost))
	}
	if n := w.requests("/sendToDevice/m.room_key_request/") - before; n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
	w.alice.sync(room) // answers: it had shared the key with this device
	w.no(w.crypto.Await(t.Context(), ghost, ev))
	opened, err := w.crypto.Open(t.Context(), ev, ghost)
	if err != nil || text(opened) != "hello" {
		t.Errorf("%v %v", opened, err)
	}
}

func TestKeyWithheld_IsWhyThereIsNone(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.say(room, "hello") // with nobody
	ev := w.next()
	var sealed struct {
		Content struct {
			Session id.SessionID `json:"session_id"`
		} `json:"content"`
	}
	w.no(json.Unmarshal(ev.Raw, &sealed))
	for _, typ := range []event.Type{event.ToDeviceRoomKeyWithheld, event.ToDeviceOrgMatrixRoomKeyWithheld} {
		_, err := w.alice.client.SendToDevice(t.Context(), typ, &mautrix.ReqSendToDevice{Messages: map[id.UserID]map[id.DeviceID]*event.Content{ghost: {w.device(ghost): {
			Parsed: &event.RoomKeyWithheldEventContent{RoomID: room, Algorithm: id.AlgorithmMegolmV1, SessionID: sealed.Content.Session, Code: event.RoomKeyWithheldUnverified},
		}}}})
		w.no(err)
		w.settle()
		_, err = w.crypto.Open(t.Context(), ev, ghost)
		var withheld *event.RoomKeyWithheldEventContent
		if !errors.Is(err, crypto.ErrNoKey) || !errors.As(err, &withheld) && !strings.Contains(err.Error(), "withheld") {
			t.Error(err)
		}
	}
}

func TestClaims_FiveHundredGhosts_DrainNobody(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	const ghosts = 60 // each as good as the next; 500 take their time on a small machine
	var names []id.UserID
	for n := range ghosts {
		names = append(names, w.ghost(fmt.Sprintf("g%d", n)))
	}
	room := w.room(names...)
	for _, ghost := range names {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	left := func() int {
		resp, err := w.alice.client.UploadKeys(t.Context(), &mautrix.ReqUploadKeys{})
		w.no(err)
		return resp.OneTimeKeyCounts.SignedCurve25519
	}
	full := left()
	if full != 50 {
		t.Errorf("preparing has cost %d keys", 50-full)
	}
	var waits int
	for _, ghost := range names {
		if _, err := w.seal(ghost, room, "x"); errors.Is(err, crypto.ErrClaims) {
			if wait := appservice.LaterWait(err); wait <= 0 || wait > crypto.ClaimsLongest {
				t.Errorf("it says to wait %s: %v", wait, err)
			}
			waits++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if taken := full - left(); taken > crypto.ClaimsAtOnce+5 || waits < ghosts-crypto.ClaimsAtOnce-5 || taken+waits != ghosts {
		t.Errorf("%d keys were taken, %d messages wait", taken, waits)
	}
}

func TestClaims_Bucket_FillsWithTime(t *testing.T) {
	var c crypto.Claims
	now := time.Now()
	devices := []id.IdentityKey{"a", "b"}
	for range crypto.ClaimsAtOnce {
		if wait := c.Take(devices, now); wait != 0 {
			t.Fatal(wait)
		}
	}
	if wait := c.Take([]id.IdentityKey{"c", "b"}, now); wait <= 0 || wait > crypto.ClaimsEvery {
		t.Error(wait)
	}
	if wait := c.Take([]id.IdentityKey{"c"}, now); wait != 0 {
		t.Error("a refusal has cost another device a key")
	}
	if wait := c.Take(devices, now.Add(crypto.ClaimsEvery)); wait != 0 {
		t.Error(wait)
	}
	if wait := c.Take(devices, now.Add(crypto.ClaimsEvery)); wait == 0 {
		t.Error("one in a while became two")
	}
	if c.Take([]id.IdentityKey{"d"}, now.Add(time.Hour)); c.Kept() != 1 {
		t.Errorf("%d full buckets are kept", c.Kept())
	}
}

func TestClaims_ManyWait_EachHasATurnOfItsOwnAndNoneWaitsForEver(t *testing.T) {
	var c crypto.Claims
	now := time.Now()
	device := []id.IdentityKey{"a"}
	for range crypto.ClaimsAtOnce {
		c.Take(device, now)
	}
	const waiting = 500
	turns, together := map[time.Duration]int{}, 0
	for range waiting {
		wait := c.Take(device, now)
		turns[wait]++
		if wait == crypto.ClaimsLongest {
			together++
		}
		if wait <= 0 || wait > crypto.ClaimsLongest {
			t.Fatal(wait)
		}
	}
	if distinct := int(crypto.ClaimsLongest / crypto.ClaimsEvery); len(turns) != distinct || together != waiting-distinct+1 {
		t.Errorf("%d turns for %d, and %d of them together at the end", len(turns), waiting, together)
	}
	late := now.Add(crypto.ClaimsLongest)
	if wait := c.Take(device, late); wait != 0 {
		t.Errorf("nobody came back, and the next waits %s", wait)
	}
}

func TestRecoveryKey_IsShownOnceAndOpensWhatIsStored(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	key, err := w.crypto.RecoveryKey(t.Context(), ghost)
	w.no(err)
	if _, err := w.crypto.RecoveryKey(t.Context(), ghost); !errors.Is(err, crypto.ErrRecoveryKey) {
		t.Error(err)
	}
	client := w.as.Ghost(ghost).Client(w.device(ghost))
	client.DeviceID = "OTHER"
	_, err = client.MakeRequest(t.Context(), http.MethodPut, w.as.Ghost(ghost).Client("").BuildClientURL("v3", "devices", "OTHER"), map[string]any{}, nil)
	w.no(err)
	other := olm.NewOlmMachine(client, nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	w.no(other.Load(t.Context()))
	w.no(other.ShareKeys(t.Context(), 0))
	w.no(other.VerifyWithRecoveryKey(t.Context(), key))
	master := w.keysOf(ghost).MasterKeys[ghost]
	if other.CrossSigningKeys.MasterKey.PublicKey() != master.FirstKey() {
		t.Error("it opens other keys")
	}
	w.no(w.crypto.ResetCrossSigning(t.Context(), ghost))
	if again, err := w.crypto.RecoveryKey(t.Context(), ghost); err != nil || again == key {
		t.Errorf("after a reset: %v", err)
	}
}

func TestKilledWhileARecoveryKeyIsMade_TheNextIsShown(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	for _, path := range []string{"m.secret_storage.key.", "m.cross_signing.master", "m.secret_storage.default_key"} {
		remove := w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, path) {
				return false
			}
			rw.WriteHeader(http.StatusBadGateway)
			return true
		})
		if _, err := w.crypto.RecoveryKey(t.Context(), ghost); err == nil {
			t.Error(path)
		}
		remove()
	}
	if _, err := w.crypto.RecoveryKey(t.Context(), ghost); err != nil {
		t.Error(err)
	}
}

func TestK2_DeviceLists_AreMarkedWithTheTransaction(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.session(ghost, room)
	outdated, err := w.store.OutdatedUsers(t.Context())
	if err != nil || len(outdated) != 0 {
		t.Fatal(outdated, err)
	}
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error {
		_, err := tx.Ingest(&store.Transaction{ID: "x", ChangedUsers: []string{string(w.alice.ID()), "@stranger:hs.test"}})
		return err
	}))
	if outdated, err = w.store.OutdatedUsers(t.Context()); err != nil || !slices.Equal(outdated, []string{string(w.alice.ID())}) {
		t.Errorf("%v %v", outdated, err)
	}
}
