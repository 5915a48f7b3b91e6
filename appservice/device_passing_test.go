package appservice

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What stands in front of a homeserver answers 404 in words of its own while that is restarted. It says nothing about
// devices.
func TestC17_D5_NotFoundOfAProxy_DecidesNothing(t *testing.T) {
	for _, of := range []string{"/devices/", "/login", "/whoami"} {
		t.Run(of, func(t *testing.T) {
			var away atomic.Bool
			away.Store(true)
			hs := newFakeHS(t)
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				if of == "/login" && strings.Contains(r.URL.Path, "/devices/") {
					answerError(w, 404, codeUnrecognized, "not here")
					return true
				}
				if away.Load() && strings.Contains(r.URL.Path, of) {
					http.Error(w, "404 page not found", http.StatusNotFound)
					return true
				}
				return false
			}
			f := newFixture(t, hs)
			if _, err := f.send(ghostA, "1"); err == nil {
				t.Error("a message was sent without a device")
			}
			if s, err := f.as.DeviceSupport(t.Context()); err != nil || s.Method != "" {
				t.Errorf("decided for %+v, %v", s, err)
			}
		})
	}
}

// Versions that could not be had when devices were found out are had later.
func TestC17_VersionsThatWereNotThereAtFirst_AreComparedFromTheNextStartOn(t *testing.T) {
	hs := newAges(t)
	hs.become(func(a *ages) { a.can, a.versions, a.federation = true, "", "" })
	f := newFixture(t, hs)
	say := func() {
		t.Helper()
		if _, err := f.send(ghostA, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.send(ghostA, "2"); err != nil {
			t.Fatal(err)
		}
	}
	say()
	hs.become(func(a *ages) {
		a.versions, a.federation = `{"versions":["v1.1"]}`, `{"server":{"name":"Synapse","version":"1.160.0"}}`
	})
	for range 2 {
		f.crash()
		if _, err := f.as.support(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := f.as.DeviceSupport(t.Context()); err != nil || s.Software != "Synapse 1.160.0" || !s.ActAs {
		t.Errorf("%+v %v", s, err)
	}
	hs.become(func(a *ages) { a.federation = `{"server":{"name":"Synapse","version":"1.161.0"}}` })
	f.crash()
	if s, err := f.as.support(t.Context()); err != nil || s != nil {
		t.Errorf("another version is not noticed: %+v %v", s, err)
	}
}

// Some reverse proxies let no federation through, and some say nothing then.
func TestC17_VersionsThatAreNotAnswered_HoldNobodyUpForLong(t *testing.T) {
	hs := newAges(t)
	hs.become(func(a *ages) { a.can = true })
	free := make(chan struct{})
	silent := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/federation/") {
			select {
			case <-free:
			case <-r.Context().Done():
			}
			return
		}
		hs.ServeHTTP(w, r)
	})
	f := newFixture(t, silent)
	defer close(free)
	f.as.devices.timeout = 50 * time.Millisecond
	if _, err := f.send(ghostA, "1"); err != nil {
		t.Fatal(err)
	}
}
