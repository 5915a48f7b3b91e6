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
	w.no(os.WriteFile(path, copied, 0o600))
	for _, more := range []string{"-wal", "-shm"} {
		_ = os.Remove(path + more)
	}
	open()
	if w.session(ghost, room) == first {
		t.Error("a key is used again of a copy that was made while it was not known what the homeserver had taken")
	}
}
