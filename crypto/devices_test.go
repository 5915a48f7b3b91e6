//go:build goolm

package crypto_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

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

// away has the server of a user not answer to who asks for the user's devices, and counts who does.
func (w *world) away(user id.UserID) (asked *atomic.Int32, back func()) {
	asked = new(atomic.Int32)
	return asked, w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/keys/query") {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte(user)) {
			return false
		}
		asked.Add(1)
		_, _ = rw.Write([]byte(`{"device_keys":{},"failures":{"away.test":{"errcode":"M_UNKNOWN"}}}`))
		return true
	})
}

func TestDevices_OfAServerThatIsAway_AreAskedForSeldomAndGetAKeyOnceItIsBack(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	carol := newCarol(w, room)
	w.settle()
	asked, back := w.away(carol.user)
	w.session(ghost, room)
	var last id.SessionID
	for range 10 {
		last = w.session(ghost, room)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("11 messages waited %d times for the server", n)
	}
	w.with(func(*crypto.Options) {}) // as after a restart, so that she is asked for once more
	crypto.AskSilentAfter(w.crypto, 200*time.Millisecond)
	if w.session(ghost, room) != last {
		t.Error("the room has another key, and nobody more to have it")
	}
	back()
	for n := 0; w.session(ghost, room) == last; n++ {
		if n == 50 { // at 100 messages there would be another key anyway
			t.Fatal("her server is back, and she has no key")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if known, err := w.crypto.Devices(t.Context(), ghost, carol.user); err != nil || len(known) != 1 {
		t.Errorf("known: %v, %v", known, err)
	}
}

func TestDevices_OfAServerThatIsAwayForLong_AreAskedForOnceItIsHeardOf(t *testing.T) {
	for name, hear := range map[string]func(w *world, ghost id.UserID, room id.RoomID, carol *carol){
		"a message": func(w *world, ghost id.UserID, room id.RoomID, carol *carol) {
			ev := w.alice.encryptedEvent(room, "$1", object(w.alice.encrypt(room, "x")))
			ev.Sender = carol.user
			if _, err := w.crypto.Open(t.Context(), ev, ghost); err == nil { // it need not be readable
				t.Error("carol has no key that could have been used")
			}
		},
		"her devices": func(w *world, _ id.UserID, _ id.RoomID, carol *carol) {
			w.no(w.crypto.HandleKeys(t.Context(), &appservice.Event{Kind: store.KindDeviceLists, Raw: json.RawMessage(fmt.Sprintf(`{"changed":[%q]}`, carol.user))}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.with(func(*crypto.Options) {})
			crypto.AskSilentAfter(w.crypto, time.Hour)
			ghost := w.ghost("ann")
			w.no(w.crypto.Prepare(t.Context(), ghost))
			room, other := w.room(ghost), w.room(ghost)
			carol := newCarol(w, room)
			_, err := carol.client("").JoinRoomByID(t.Context(), other)
			w.no(err)
			w.settle()
			asked, back := w.away(carol.user)
			w.session(ghost, other)
			w.session(ghost, room)
			for range 5 { // whatever comes of her, nobody waits for her server each time
				hear(w, ghost, room, carol)
				w.session(ghost, room)
			}
			if n := asked.Load(); n != 2 {
				t.Errorf("she was asked for %d times; once, and once when something had come from her", n)
			}
			back()
			before := w.session(ghost, other)
			if known, err := w.crypto.Devices(t.Context(), ghost, carol.user); err != nil || len(known) != 1 {
				t.Errorf("something has come from her, and in a room that has not waited for her yet she is not asked for: %v, %v", known, err)
			}
			if w.session(ghost, other) != before {
				t.Error("the room has another key although nothing has changed")
			}
		})
	}
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
