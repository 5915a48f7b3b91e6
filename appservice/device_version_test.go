package appservice

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// ages is a homeserver whose versions can be changed, and which makes devices for ghosts only when it can.
type ages struct {
	*fakeHS
	mu                   sync.Mutex
	federation, versions string // answers; empty: 404
	server               string // the header of that name
	can                  bool
	asked                int // for versions
}

func newAges(t testing.TB) *ages {
	a := &ages{fakeHS: newFakeHS(t), federation: `{"server":{"name":"Synapse","version":"1.160.0"}}`, versions: `{"versions":["v1.1"],"unstable_features":{"a":true}}`}
	a.fakeHS.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.can && (strings.Contains(r.URL.Path, "/devices/") || strings.HasSuffix(r.URL.Path, "/login")) {
			answerError(w, 404, codeUnrecognized, "not here")
			return true
		}
		return false
	}
	return a
}

func (a *ages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := map[string]*string{"/_matrix/federation/v1/version": &a.federation, "/_matrix/client/versions": &a.versions}[r.URL.Path]
	if answer == nil {
		a.fakeHS.ServeHTTP(w, r)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	switch {
	case r.Header.Get("Authorization") != "" || r.URL.RawQuery != "":
		a.t.Errorf("%s is asked with a token or a user", r.URL)
	case *answer == "":
		answerError(w, 404, codeUnrecognized, "not here")
	default:
		w.Header().Set("Server", a.server)
		_, _ = w.Write([]byte(*answer))
	}
}

func (a *ages) become(change func(a *ages)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

func TestC17_AnotherVersionOfTheHomeserver_IsAskedForDevicesAgainAtTheNextStart(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *ages)
		again  bool
	}{
		"nothing":                   {func(*ages) {}, false},
		"version":                   {func(a *ages) { a.federation = `{"server":{"name":"Synapse","version":"1.161.0"}}` }, true},
		"another server":            {func(a *ages) { a.federation = `{"server":{"name":"Dendrite","version":"1.160.0"}}` }, true},
		"client versions":           {func(a *ages) { a.versions = `{"versions":["v1.1","v1.2"],"unstable_features":{"a":true}}` }, true},
		"unstable feature":          {func(a *ages) { a.versions = `{"versions":["v1.1"],"unstable_features":{"a":false}}` }, true},
		"order of the features":     {func(a *ages) { a.versions = `{"unstable_features":{"a":true},"versions":["v1.1"]}` }, false},
		"federation not answering":  {func(a *ages) { a.federation = "" }, false},
		"client API not answering":  {func(a *ages) { a.versions = "" }, false},
		"nothing answers but junk":  {func(a *ages) { a.versions, a.federation = "<html>", "<html>" }, false},
		"no federation from before": {func(a *ages) { a.federation = "{}" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			hs := newAges(t)
			f := newFixture(t, hs)
			for range 3 {
				if _, err := f.send(ghostA, "1"); err != nil {
					t.Fatal(err)
				}
			}
			if n := hs.count("PUT /devices/"); n != 1 {
				t.Fatalf("asked %d times", n)
			}
			hs.become(c.change)
			hs.become(func(a *ages) { a.can = true })
			if _, err := f.send(ghostA, "2"); err != nil || hs.count("PUT /devices/") != 1 {
				t.Errorf("%v; asked in the same process", err)
			}
			f.crash()
			for range 3 {
				if _, err := f.send(ghostA, "3"); err != nil {
					t.Fatal(err)
				}
			}
			want := 1
			if c.again {
				want = 2
			}
			if n := hs.count("PUT /devices/"); n != want {
				t.Errorf("asked %d times, want %d", n, want)
			}
			if s, err := f.as.DeviceSupport(t.Context()); err != nil || s.ActAs != c.again {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

func TestC17_HomeserverWithoutDevices_IsAskedAgainAfterAnHour(t *testing.T) {
	hs := newAges(t)
	f := newFixture(t, hs)
	now := time.Now()
	later := func(by time.Duration) {
		t.Helper()
		now = now.Add(by)
		f.as.devices.now = func() time.Time { return now }
		if _, err := f.send(ghostA, "1"); err != nil {
			t.Fatal(err)
		}
	}
	later(0)
	later(noDevicesFor - time.Second)
	if n := hs.count("PUT /devices/"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	later(2 * time.Second)
	if n := hs.count("PUT /devices/"); n != 2 {
		t.Errorf("asked %d times after an hour", n)
	}
	hs.become(func(a *ages) { a.can = true })
	f.crash() // another process goes by the same hour
	later(0)
	if n := hs.count("PUT /devices/"); n != 2 {
		t.Errorf("asked %d times", n)
	}
	later(2 * noDevicesFor)
	later(2 * noDevicesFor)
	if n := hs.count("PUT /devices/"); n != 3 {
		t.Errorf("asked %d times when there are devices", n)
	}
}

func TestC17_AnotherRegistrationOrMode_IsAnotherQuestion(t *testing.T) {
	hs := newAges(t)
	f := newFixture(t, hs)
	for n, change := range []func(c *Config){
		func(*Config) {}, func(c *Config) { c.Registration.DeviceManagement = false }, func(c *Config) { c.DeviceMode = DeviceMSC4190 },
	} {
		if n > 0 {
			f.crash(change)
		}
		for range 2 {
			_, _ = f.send(ghostA, "1")
		}
		if got := hs.count("PUT /devices/"); got != n+1 {
			t.Errorf("setup %d: asked %d times", n, got)
		}
	}
}
