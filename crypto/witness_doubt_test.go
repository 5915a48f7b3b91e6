//go:build goolm

package crypto_test

import (
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// The homeserver takes a word and the answer is lost; what is told after that does not arrive.
func TestStore_WhoseWordTheHomeserverTookUnheard_IsNoOlderStateAndIsOneOnceItHasGoneOn(t *testing.T) {
	path := t.TempDir() + "/bridge.db"
	w := newWorldOn(t, openFile(t, path))
	open := func() {
		t.Helper()
		w.store = openFile(t, path)
		w.start()
	}
	ghost := w.ghost("ann")
	room := w.room(ghost)
	w.no(w.crypto.Prepare(t.Context(), ghost))
	first := w.session(ghost, room)
	w.stop()
	open()
	var told atomic.Int32
	remove := w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/account_data/io.github.trestle-bridge.store") || r.Header.Get("Passed-On") != "" {
			return false
		}
		if told.Add(1) == 1 {
			passed, err := http.NewRequestWithContext(r.Context(), r.Method, w.hs.URL()+r.URL.RequestURI(), r.Body)
			if err != nil {
				t.Error(err)
				return true
			}
			passed.Header = r.Header.Clone()
			passed.Header.Set("Passed-On", "yes")
			if resp, err := w.hs.Client().Do(passed); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("the homeserver was not told: %v", err)
			} else {
				_ = resp.Body.Close()
			}
		}
		rw.WriteHeader(http.StatusBadRequest)
		return true
	})
	for range 3 {
		if _, err := w.seal(ghost, room, "x"); err == nil {
			t.Error("a key is used although the homeserver was not heard to take a word")
		}
	}
	if told.Load() < 2 {
		t.Fatalf("%d words were told", told.Load())
	}
	remove()
	w.stop()
	copied, err := os.ReadFile(path)
	w.no(err)
	open()
	if w.session(ghost, room) != first {
		t.Error("an honest database is taken for an older one, and its keys are gone")
	}
	w.stop()
	w.putBack(path, copied)
	open()
	if w.session(ghost, room) == first {
		t.Error("a key is used again of a copy that was made while it was not known what the homeserver had taken")
	}
}

// A copy is of a moment in which the homeserver may or may not have taken a word. It is put back and found out, and the bridge ends while it tells another word; then it is put back once more.
func TestStore_PutBackTwiceToADoubtfulState_IsFoundOutTheSecondTimeAsWell(t *testing.T) {
	path := t.TempDir() + "/bridge.db"
	w := newWorldOn(t, openFile(t, path))
	var taken atomic.Int32 // how many words are taken from now on
	taken.Store(100)
	w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/account_data/io.github.trestle-bridge.store") || taken.Add(-1) >= 0 {
			return false
		}
		rw.WriteHeader(http.StatusBadRequest)
		return true
	})
	open := func(words int32) {
		t.Helper()
		taken.Store(words)
		w.store = openFile(t, path)
		w.start()
	}
	ghost := w.ghost("ann")
	room := w.room(ghost)
	w.no(w.crypto.Prepare(t.Context(), ghost))
	first := w.session(ghost, room)
	w.stop()
	open(0)
	if _, err := w.seal(ghost, room, "x"); err == nil {
		t.Fatal("the homeserver takes no word, and a key is used")
	}
	w.stop()
	copied, err := os.ReadFile(path)
	w.no(err)
	open(100)
	if w.session(ghost, room) != first {
		t.Fatal("an honest database is taken for an older one")
	}
	for _, words := range []int32{1, 100} {
		w.stop()
		w.putBack(path, copied)
		open(words)
		if content, err := w.seal(ghost, room, "x"); err == nil && content.SessionID == first || err != nil && words > 1 {
			t.Errorf("with %d words taken: a key of the copy is used again, or none is: %v", words, err)
		}
	}
}
