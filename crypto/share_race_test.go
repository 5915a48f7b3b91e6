//go:build goolm

package crypto_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	trestle "github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// meanwhile has something happen once between a homeserver's answer to a request of the ghost's and its arrival.
func (w *world) meanwhile(path, within string, happens func()) (remove func()) {
	var once sync.Once
	return w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) (done bool) {
		if !strings.Contains(r.URL.Path, path) || !strings.Contains(r.URL.RawQuery, "test_ann") || r.Header.Get("Forwarded-By-Test") != "" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte(within)) {
			return false
		}
		once.Do(func() {
			req, err := http.NewRequest(r.Method, w.hs.URL()+r.URL.RequestURI(), bytes.NewReader(body))
			if err != nil {
				w.t.Error(err)
				return
			}
			req.Header = r.Header.Clone()
			req.Header.Set("Forwarded-By-Test", "1")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				w.t.Error(err)
				return
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if err != nil {
				w.t.Error(err)
			}
			happens()
			w.settle()
			rw.WriteHeader(resp.StatusCode)
			_, _ = rw.Write(answer)
			done = true
		})
		return done
	})
}

func TestShare_SomebodyComesWhileAKeyIsGiven_HasOneToo(t *testing.T) {
	w := newWorld(t)
	w.with(func(*trestle.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	bob := newPerson(w, "bob")
	w.settle()
	defer w.meanwhile("/sendToDevice/m.room.encrypted", "", func() {
		if _, err := bob.Join(t.Context(), string(room)); err != nil {
			t.Error(err)
		}
	})()
	w.session(ghost, room)
	last := w.session(ghost, room)
	bob.sync(room)
	if got, err := bob.olm.CryptoStore.GetGroupSession(t.Context(), room, last); err != nil || got == nil {
		t.Errorf("bob has no key: %v", err)
	}
}

// What another ghost learns of devices takes the keys of all ghosts away; that of ann is not stored yet.
func TestShare_NewDeviceThatAnotherGhostLearnsOfMeanwhile_HasAKeyToo(t *testing.T) {
	w := newWorld(t)
	w.with(func(*trestle.Options) {})
	ann, ben := w.ghost("ann"), w.ghost("ben")
	w.no(w.crypto.Prepare(t.Context(), ann))
	w.no(w.crypto.Prepare(t.Context(), ben))
	room := w.room(ann, ben, w.ghost("aaa")) // who reads for the others
	c := newCarol(w, room)
	w.settle()
	w.session(ben, room)
	var given atomic.Int32
	defer w.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/sendToDevice/m.room.encrypted") && strings.Contains(r.URL.RawQuery, "test_ann") {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte(`"TWO"`)) {
				given.Add(1)
			}
		}
		return false
	})()
	defer w.meanwhile("/sendToDevice/m.room.encrypted", "", func() {
		c.gets("TWO")
		w.settle()
		w.session(ben, room)
		if known, err := w.crypto.Devices(t.Context(), ben, c.user); err != nil || len(known) != 2 {
			t.Errorf("%d devices are known, %v", len(known), err)
		}
	})()
	first := w.session(ann, room)
	if next := w.session(ann, room); next != first || given.Load() == 0 {
		t.Errorf("ann has given %d keys to the new device; her keys are %s and then %s", given.Load(), first, next)
	}
}

func TestShare_DeviceThatIsSignedLater_GetsAKey(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.with(func(o *trestle.Options) { o.Receive, o.Send = trestle.TrustCrossSigned, trestle.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.session(ghost, room)
	w.alice.signs()
	w.settle()
	after := w.session(ghost, room)
	w.alice.sync(room)
	var got *crypto.InboundGroupSession
	if got, _ = w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, after); got == nil {
		t.Error("the device that was signed meanwhile has no key")
	}
}

// What is learnt of a device's trust and that the room keys go are one commit: here the second cannot be written.
func TestShare_LearnsOfASignatureAndCannotDropTheKeys_LearnsNothing(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) { learnsNothing(t, restart) })
	}
}

func learnsNothing(t *testing.T, restart bool) {
	w := newWorldOn(t, storetest.Open(t, storetest.SQLite(t), store.Options{}))
	ghost := w.ghost("ann")
	w.with(func(o *trestle.Options) { o.Receive, o.Send = trestle.TrustCrossSigned, trestle.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	first := w.session(ghost, room)
	w.alice.signs()
	w.settle()
	restore := trigger(t, w.store, "DELETE", "crypto_megolm_outbound_session", `SELECT RAISE(ABORT, 'no room')`)
	if _, err := w.seal(ghost, room, "x"); err == nil {
		t.Fatal("the keys could be dropped, and this shows nothing")
	}
	restore()
	if restart {
		w.with(func(o *trestle.Options) { o.Receive, o.Send = trestle.TrustCrossSigned, trestle.TrustCrossSigned })
	}
	if w.session(ghost, room) == first {
		t.Error("the key is still in use that the signed device has not got")
	}
}

func TestShare_DeviceThatIsTrustedNoMore_HasTheKeyNoMore(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.with(func(o *trestle.Options) { o.Receive, o.Send = trestle.TrustCrossSigned, trestle.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.signs()
	w.settle()
	reads := func() bool {
		session := w.session(ghost, room)
		w.alice.sync(room)
		got, _ := w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, session)
		return got != nil
	}
	if !reads() {
		t.Fatal("the signed device has no key, and this shows nothing")
	}
	keys, err := w.alice.olm.GenerateCrossSigningKeys() // which sign no device
	w.no(err)
	w.no(w.alice.olm.PublishCrossSigningKeys(t.Context(), keys, func(uia *mautrix.RespUserInteractive) any {
		return &mautrix.ReqUIAuthLogin{BaseAuthData: mautrix.BaseAuthData{Type: mautrix.AuthTypePassword, Session: uia.Session}, Password: "alice"}
	}))
	w.settle()
	if reads() {
		t.Error("a device that nobody vouches for any more reads on")
	}
}

// The bridge is told so while the key goes to the devices of before.
func TestShare_MembersDevicesChangeWhileAKeyIsGiven_AreAskedForBeforeItIsUsed(t *testing.T) {
	w := newWorld(t)
	w.with(func(*trestle.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	c := newCarol(w, room)
	w.settle()
	defer w.meanwhile("/sendToDevice/m.room.encrypted", "", func() { c.gets("TWO") })()
	used := 0
	_, err := w.crypto.Seal(t.Context(), trestle.Sealing{Room: room, Machine: ghost, Type: "m.room.message", Content: message("x"), Record: func(*store.Tx, json.RawMessage) error {
		used++
		if outdated, err := w.store.OutdatedMembers(t.Context(), string(room)); err != nil || len(outdated) > 0 {
			t.Errorf("a key is used that was given to the devices of before of %v, %v", outdated, err)
		}
		return nil
	}})
	w.no(err)
	if used == 0 {
		t.Error("nothing was encrypted")
	}
	if known, err := w.crypto.Devices(t.Context(), ghost, c.user); err != nil || len(known) != 2 {
		t.Errorf("%d devices are known, %v", len(known), err)
	}
}

func TestDevices_ChangeWhileTheyAreAskedFor_IsNotForgotten(t *testing.T) {
	w := newWorld(t)
	w.with(func(*trestle.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	c := newCarol(w, room)
	w.settle()
	for n, name := range []id.DeviceID{"TWO", "THREE"} { // while she is asked for the first time, and again
		remove := w.meanwhile("/keys/query", "carol", func() { c.gets(name) })
		w.session(ghost, room)
		remove()
		w.session(ghost, room)
		if known, err := w.crypto.Devices(t.Context(), ghost, c.user); err != nil || len(known) != 2*(n+1) {
			t.Errorf("%d devices of %d are known, %v", len(known), 2*(n+1), err)
		}
		c.gets("OTHER" + name) // so that she is asked for again
		w.settle()
	}
}

// A key that is taken away between its giving and its first use is made anew, and when that happens again and again the message waits: it has failed at nothing.
func TestShare_KeyIsTakenAwayBeforeItIsUsed_TheMessageWaitsAtMost(t *testing.T) {
	w := newWorld(t)
	w.with(func(*trestle.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.settle()
	var stop atomic.Bool
	var dropping sync.WaitGroup
	dropping.Go(func() {
		for !stop.Load() {
			w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.DropRoomKeys(string(room)) }))
		}
	})
	defer dropping.Wait()
	defer stop.Store(true)
	for range 100 {
		if _, err := w.seal(ghost, room, "x"); err != nil && appservice.LaterWait(err) == 0 {
			t.Fatal(err)
		}
	}
}

// A member's homeserver says that his devices have changed whenever it is asked for them. They were asked for after the message came: that is enough for it, and what has
// changed since then is for the next one.
func TestShare_MembersDevicesChangeWheneverTheyAreAskedFor_TheMessageLeavesWithTheLastAnswer(t *testing.T) {
	w := newWorld(t)
	w.with(func(*trestle.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	c := newCarol(w, room)
	w.settle()
	changed := func() {
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.OutdateDevices(string(c.user)) }))
	}
	before := w.session(ghost, room)
	var asked atomic.Int32
	defer w.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/keys/query") && strings.Contains(r.URL.RawQuery, "test_ann") {
			asked.Add(1)
			changed()
		}
		return false
	})()
	c.gets("TWO")
	w.settle()
	changed()
	if w.session(ghost, room) == before {
		t.Error("the device that was there before the message has no key for it")
	}
	if known, err := w.crypto.Devices(t.Context(), ghost, c.user); err != nil || len(known) != 2 {
		t.Errorf("%d devices are known, %v", len(known), err)
	}
	if n := asked.Load(); n > 3 {
		t.Errorf("for one message it was asked %d times", n)
	}
	if outdated, err := w.store.OutdatedMembers(t.Context(), string(room)); err != nil || len(outdated) != 1 {
		t.Errorf("the next message does not ask once more: %v, %v", outdated, err)
	}
}
