package appservice

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// That a homeserver has no devices is looked at again after a while. Nobody's messages wait for that, or fail with it.
func TestC17_LookingForDevicesAgain_HoldsNobodyUp(t *testing.T) {
	asked, free := make(chan struct{}, 1), make(chan struct{})
	var slow, broken bool
	hs := newAges(t)
	f := newFixture(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/devices/") {
			hs.mu.Lock()
			hang, fail := slow, broken
			hs.mu.Unlock()
			if hang {
				asked <- struct{}{}
				<-free
			}
			if fail {
				answerError(w, 500, codeUnknown, "sorry")
				return
			}
		}
		hs.ServeHTTP(w, r)
	}))
	send := func() <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := f.send(ghostA, "1")
			ended <- err
		}()
		return ended
	}
	if err := <-send(); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(2 * noDevicesFor)
	f.as.devices.now = func() time.Time { return later }
	hs.become(func(*ages) { broken = true })
	if err := <-send(); err != nil {
		t.Errorf("a message fails because devices could not be looked for: %v", err)
	}
	later = later.Add(2 * noDevicesFor)
	hs.become(func(*ages) { slow, broken = true, false })
	first := send()
	<-asked
	if err := <-send(); err != nil { // it would wait for ever
		t.Error(err)
	}
	close(free)
	if err := <-first; err != nil {
		t.Error(err)
	}
}
