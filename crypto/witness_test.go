//go:build goolm

package crypto_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// stop ends what works on the store, and the store.
func (w *world) stop() {
	w.t.Helper()
	w.no(w.as.Stop(context.Background()))
	w.no(w.crypto.Close())
	w.no(w.store.Close())
}

// putBack makes a copy the store's file. It was stopped before.
func (w *world) putBack(path string, copied []byte) {
	w.t.Helper()
	w.no(os.WriteFile(path, copied, 0o600))
	for _, more := range []string{"-wal", "-shm"} {
		_ = os.Remove(path + more)
	}
}

func openFile(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+path, store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// What was copied may have been copied while the bridge ran, and then the copy is of a process that never ended.
func TestStore_PutBackToAnOlderState_UsesNoKeyOfThenAgainAndIsRead(t *testing.T) {
	path := t.TempDir() + "/bridge.db"
	w := newWorldOn(t, openFile(t, path))
	restart := func() {
		t.Helper()
		w.stop()
		w.store = openFile(t, path)
		w.start()
	}
	ghost := w.ghost("ann")
	room := w.room(ghost)
	says := func(what string) (session string) {
		t.Helper()
		w.no(w.crypto.Prepare(t.Context(), ghost))
		w.alice.sync(room)
		content, err := w.seal(ghost, room, what)
		w.no(err)
		_, err = w.as.Ghost(ghost).SendMessage(t.Context(), room, event.EventEncrypted, content, what)
		w.no(err)
		for _, ev := range w.alice.sync(room) {
			opened, err := w.alice.olm.DecryptMegolmEvent(t.Context(), ev)
			if err != nil || text(opened) != what {
				t.Errorf("alice reads %q of %q: %v", text(opened), what, err)
			}
		}
		return string(content.SessionID)
	}
	first := says("one")
	restart()
	if says("two") != first {
		t.Error("a mere restart has cost the room its key")
	}
	w.stop()
	copied, err := os.ReadFile(path)
	w.no(err)
	w.store = openFile(t, path)
	w.start()
	says("three")
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.DropAllRoomKeys() })) // the Olm session goes on
	second := says("four")
	w.stop()
	w.putBack(path, copied)
	w.store = openFile(t, path)
	w.start()
	third := says("five")
	if third == first || third == second {
		t.Error("a key of the older state was used again")
	}
	restart()
	if says("six") != third {
		t.Error("the room gets a new key once more")
	}
}

// A ghost's cross-signing keys of before its reset are not used either, however often the bridge is started. That costs the others a question, once.
func TestStore_PutBackToBeforeAReset_IsSeenOfGhostsAsWell(t *testing.T) {
	path := t.TempDir() + "/bridge.db"
	w := newWorldOn(t, openFile(t, path))
	reset, other := w.ghost("ann"), w.ghost("ben")
	w.no(w.crypto.Prepare(t.Context(), reset))
	w.no(w.crypto.Prepare(t.Context(), other))
	w.stop()
	copied, err := os.ReadFile(path)
	w.no(err)
	w.store = openFile(t, path)
	w.start()
	w.no(w.crypto.ResetCrossSigning(t.Context(), reset))
	w.stop()
	w.putBack(path, copied)
	for n, questions := range []int{1, 0} {
		w.store = openFile(t, path)
		w.start()
		if err := w.crypto.Prepare(t.Context(), reset); !errors.Is(err, crypto.ErrOtherIdentity) {
			t.Errorf("start %d: the keys of before the reset are used: %v", n+1, err)
		}
		before := w.requests("/keys/query")
		w.no(w.crypto.Prepare(t.Context(), other))
		if asked := w.requests("/keys/query") - before; asked != questions {
			t.Errorf("start %d: the ghost whose keys are good has cost %d questions", n+1, asked)
		}
		w.stop()
	}
	w.store = openFile(t, path)
	w.start()
	w.no(w.crypto.ResetCrossSigning(t.Context(), reset))
}
