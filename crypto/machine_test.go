//go:build goolm

package crypto_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

func TestK5_ToDeviceMessage_ReachesOneMachineAndNoOther(t *testing.T) {
	w, _, room, _ := prepared(t)
	ann, ben, cid := w.ghost("ann"), w.ghost("ben"), w.ghost("cid")
	for _, user := range []id.UserID{ann, ben, cid} {
		w.no(w.crypto.Prepare(t.Context(), user))
		w.no(w.as.Ghost(user).EnsureJoined(t.Context(), room))
	}
	key := w.roomKey(room)
	h := w.hand(w.alice, ann)
	ev := h.encrypt(h.payload(key))
	misdirected := *ev
	misdirected.ToUserID = ben
	if err := w.crypto.HandleKeys(t.Context(), &misdirected); !errors.Is(err, crypto.ErrNoMachine) || !appservice.IsPermanent(err) {
		t.Errorf("to a device that is not the user's: %v, want ErrNoMachine", err)
	}
	w.no(w.crypto.HandleKeys(t.Context(), ev))
	sealed := w.alice.sealedWith(key, "$1", "for ann")
	if opened, err := w.crypto.Open(t.Context(), sealed, ann); err != nil || text(opened) != "for ann" {
		t.Errorf("%q, %v", text(opened), err)
	}
	for _, user := range []id.UserID{cid, ben} { // for the bot a ghost may stand in
		if _, err := w.crypto.Open(t.Context(), sealed, user); !errors.Is(err, crypto.ErrNoKey) {
			t.Errorf("%s: got %v, want ErrNoKey", user, err)
		}
	}
}

func TestMachine_NotUsedForAWhile_LeavesMemoryAndComesBack(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
	if n := crypto.Machines(w.crypto); n != 1 {
		t.Errorf("there are %d machines, want 1", n)
	}
	crypto.Unload(w.crypto, time.Now().Add(-time.Hour))
	if n := crypto.Machines(w.crypto); n != 1 {
		t.Errorf("after an hour that has not passed there are %d machines, want 1", n)
	}
	unloadAll(t, w.crypto)
	if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "back"), bot); err != nil || text(opened) != "back" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

// A bridge has thousands of ghosts with keys.
func TestMachine_OfAGhostAtRest_TakesLessThan40KB(t *testing.T) {
	w, _, _, _ := prepared(t)
	const ghosts = 100
	load := func(i int) {
		user := w.ghost(fmt.Sprint("g", i))
		w.no(w.crypto.Prepare(t.Context(), user))
		h := w.hand(w.alice, user)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey("!r:hs.test"))))) // with an Olm session
	}
	load(ghosts)
	unloadAll(t, w.crypto)
	for i := range ghosts {
		load(i)
	}
	// What the homeserver of the test keeps does not count: it is what is given back when the machines are unloaded.
	with := heap()
	n := crypto.Machines(w.crypto)
	unloadAll(t, w.crypto)
	without := heap()
	each := (int64(with) - int64(without)) / int64(n)
	t.Logf("%d machines take %d bytes each", n, each)
	if n != ghosts || each > 40_000 {
		t.Errorf("%d machines take %d bytes each", n, each)
	}
}

// unloadAll unloads every machine, each when whatever uses it beside the test is done with it.
func unloadAll(t *testing.T, c *crypto.Crypto) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		crypto.Unload(c, time.Now().Add(time.Hour))
		n := crypto.Machines(c)
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute there are still %d machines, want none", n)
		}
	}
}

func heap() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
