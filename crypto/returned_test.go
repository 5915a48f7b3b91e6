//go:build goolm

package crypto_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/crypto"
)

// While the homeserver is away a device is made, of which the bridge is not told.
func TestHomeserver_ThatWasAway_IsAskedForDevicesWithTheNextMessage(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	for range 2 {
		_, err := w.seal(ghost, room, "x")
		w.no(err)
	}
	w.settle()
	_, err := w.seal(ghost, room, "x")
	w.no(err)
	queries := func() int { return w.requests("/keys/query") }
	before := queries()
	_, err = w.seal(ghost, room, "x")
	w.no(err)
	if n := queries() - before; n != 0 {
		t.Fatalf("%d questions although nothing has happened", n)
	}
	failed := func() {
		if _, err := w.as.Ghost(ghost).Client("").JoinedRooms(t.Context()); err == nil {
			t.Fatal("it was not away")
		}
	}
	answers := func() {
		_, err := w.as.Ghost(ghost).Client("").JoinedRooms(t.Context())
		w.no(err)
	}
	answers()
	away := w.hs.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusBadGateway)
		return true
	})
	failed()
	away()
	answers()
	if n := w.as.HomeserverReturns(); n != 0 {
		t.Errorf("one broken request is taken for %d returns", n)
	}
	away = w.hs.Intercept(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusBadGateway)
		return true
	})
	time.Sleep(3100 * time.Millisecond) // nothing answers for so long that it counts
	failed()
	away()
	answers()
	before = queries()
	for range 2 {
		_, err = w.seal(ghost, room, "x")
		w.no(err)
	}
	if n := queries() - before; n != 1 {
		t.Errorf("%d questions after it has returned", n)
	}
}
