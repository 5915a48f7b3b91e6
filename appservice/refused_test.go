package appservice

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// refusing answers every send with a status and a code, until it is set to something else.
type refusing struct {
	status int
	code   string
}

func (r *refusing) override(w http.ResponseWriter, req *http.Request, _ string) bool {
	if r.status == 0 || !strings.Contains(req.URL.Path, "/send/") {
		return false
	}
	answerError(w, r.status, r.code, "no")
	return true
}

func (h *fakeHS) with(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

func TestD4_RefusalOfAUser_IsToldApartByItsCode(t *testing.T) {
	for code, want := range map[string]struct {
		status    int
		sentinel  error
		permanent bool
		reason    string
	}{
		"M_USER_SUSPENDED":                   {403, ErrSuspended, true, "suspended"},
		"ORG.MATRIX.MSC3823.USER_SUSPENDED":  {403, ErrSuspended, true, "suspended"},
		"M_USER_LOCKED":                      {401, ErrLocked, true, "locked"},
		"ORG_MATRIX_MSC3939_USER_LOCKED":     {401, ErrLocked, true, "locked"},
		"M_USER_DEACTIVATED":                 {403, ErrDeactivated, true, "deactivated"},
		"M_RESOURCE_LIMIT_EXCEEDED":          {403, ErrServerLimit, false, "server_limit"},
		"M_UNKNOWN_TOKEN":                    {401, ErrToken, false, "token"},
		"M_MISSING_TOKEN":                    {401, ErrToken, false, "token"},
		"M_FORBIDDEN":                        {403, nil, false, ""},
		"M_LIMIT_EXCEEDED":                   {429, nil, false, ""},
		"M_USER_SUSPENDED_BUT_IN_SOME_WAY_X": {403, nil, false, ""},
	} {
		t.Run(code, func(t *testing.T) {
			hs, no := newFakeHS(t), &refusing{want.status, code}
			hs.override = no.override
			counted := prometheus.NewRegistry()
			f := newFixture(t, hs, func(c *Config) { c.Metrics = counted })
			_, err := f.send(ghostA, "t")
			if errorCode(err) != code || IsPermanent(err) != want.permanent {
				t.Errorf("%v: permanent %v", err, IsPermanent(err))
			}
			for _, sentinel := range []error{ErrSuspended, ErrLocked, ErrDeactivated, ErrServerLimit, ErrToken} {
				if errors.Is(err, sentinel) != (sentinel == want.sentinel) {
					t.Errorf("%v is %v: %v", err, sentinel, errors.Is(err, sentinel))
				}
			}
			if want.reason != "" {
				if n := counterOf(t, counted, "trestle_appservice_refusals_total", want.reason); n != 1 {
					t.Errorf("%v refusals were counted", n)
				}
			}
		})
	}
}

func TestD4_SuspendedGhost_IsAskedOncePerMessage_KeepsItsDevice_AndTheAdminIsTold(t *testing.T) {
	var log bytes.Buffer
	hs, no := newFakeHS(t), &refusing{}
	hs.override = no.override
	f := newFixture(t, hs, func(c *Config) { c.Log = zerolog.New(zerolog.SyncWriter(&log)) })
	if _, err := f.send(ghostA, "before"); err != nil {
		t.Fatal(err)
	}
	hs.with(func() { no.status, no.code = 403, "M_USER_SUSPENDED" })
	for n := range 3 {
		if _, err := f.send(ghostA, fmt.Sprint(n)); !errors.Is(err, ErrSuspended) {
			t.Errorf("%v", err)
		}
	}
	if err := f.as.Ghost(ghostA).Leave(t.Context(), testRoom, ""); err != nil {
		t.Errorf("a suspended user may leave: %v", err)
	}
	hs.with(func() { no.status = 0 })
	if _, err := f.send(ghostA, "after"); err != nil {
		t.Errorf("no longer suspended, and %v", err)
	}
	if sends, devices, registers := hs.count("PUT /rooms/"), hs.count("PUT /devices/"), hs.count("POST /register user=@irc_a"); sends != 5 || devices != 1 || registers != 1 {
		t.Errorf("%d sends, %d devices, %d registrations", sends, devices, registers)
	}
	f.stop()
	text := log.String()
	if strings.Count(text, `"user_id":"@irc_a:hs.test","code":"M_USER_SUSPENDED"`) != 1 || strings.Count(text, "its administrator can take that back") != 2 || strings.Count(text, "refusal has ended") != 1 {
		t.Errorf("the log has\n%s", text)
	}
}

func TestRefusals_WithAnAsToken_AreLoggedOnceForAllGhosts(t *testing.T) {
	var log bytes.Buffer
	hs, no := newFakeHS(t), &refusing{}
	hs.override = no.override
	f := newFixture(t, hs, func(c *Config) { c.Log = zerolog.New(zerolog.SyncWriter(&log)) })
	if _, err := f.send(ghostA, "before"); err != nil {
		t.Fatal(err)
	}
	hs.with(func() { no.status, no.code = 401, "M_UNKNOWN_TOKEN" })
	for n := range 5 {
		_, _ = f.send(ghostA, fmt.Sprint(n))
		_, _ = f.send("@irc_b:hs.test", fmt.Sprint("b", n))
	}
	hs.with(func() { no.status = 0 })
	for n := range 2 {
		if _, err := f.send(ghostA, fmt.Sprint("after", n)); err != nil {
			t.Error(err)
		}
	}
	f.stop()
	if text := log.String(); strings.Count(text, `"code":"M_UNKNOWN_TOKEN"`) != 1 || strings.Count(text, "refusal has ended") != 1 {
		t.Errorf("the log has\n%s", text)
	}
}

func TestD3_LockedUser_IsTriedOnceInFiveMinutes_AndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locked := true
		l := newLimited(t, func(req *http.Request) *http.Response {
			if locked && req.URL.Query().Get("user_id") == string(ghostA) {
				return answered(401, "", `{"errcode":"ORG_MATRIX_MSC3939_USER_LOCKED","error":"locked","soft_logout":true}`)
			}
			return answered(200, "", "{}")
		})
		send := func() int {
			status, _ := l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/t", ghostA)
			return status
		}
		for range 10 {
			if status := send(); status != 401 {
				t.Fatal(status)
			}
		}
		if n := l.requests(); n != 1 {
			t.Errorf("%d requests of a user that is known to be locked", n)
		}
		if status, _ := l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/t", "@irc_b:hs.test"); status != 200 {
			t.Errorf("another ghost got %d", status)
		}
		time.Sleep(lockedProbe)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { send() })
		}
		all.Wait()
		if n := l.requests(); n != 3 {
			t.Errorf("%d requests, want one more after five minutes", n)
		}
		locked = false
		time.Sleep(lockedProbe)
		for range 3 {
			if status := send(); status != 200 {
				t.Errorf("unlocked, and %d", status)
			}
		}
	})
}

// On Synapse a locked ghost cannot log in, and the appservice may do all else as it.
func TestD3_LockedUser_MayStillDoWhatTheHomeserverLetsItDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, func(req *http.Request) *http.Response {
			if strings.HasSuffix(req.URL.Path, "/login") {
				return answered(401, "", `{"errcode":"M_USER_LOCKED","error":"locked","soft_logout":true}`)
			}
			return answered(200, "", "{}")
		})
		if status, _ := l.request(t.Context(), "POST", "login", ghostA); status != 401 {
			t.Error(status)
		}
		if status, _ := l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/t", ghostA); status != 200 {
			t.Error(status)
		}
	})
}

func TestD3_TokenThatIsUnknownAfterTheLock_IsToldAsThat(t *testing.T) {
	hs, no := newFakeHS(t), &refusing{401, codeLocked}
	hs.override = no.override
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "1"); !errors.Is(err, ErrLocked) {
		t.Errorf("%v", err)
	}
	g, err := f.store.Ghost(t.Context(), string(ghostA))
	if err != nil || !g.DeviceMade || !g.Registered {
		t.Errorf("a locked user is kept: %+v %v", g, err)
	}
	hs.with(func() { no.code = "M_UNKNOWN_TOKEN" })
	if _, err := f.send("@irc_b:hs.test", "2"); !errors.Is(err, ErrToken) {
		t.Errorf("%v", err)
	}
}

func TestD4_SuspendedGhost_IsNotInvitedIntoTheRoomThatItMayNotJoin(t *testing.T) {
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.URL.Path, "/join/") && strings.Contains(r.URL.RawQuery, "irc_a") {
			answerError(w, 403, "M_USER_SUSPENDED", "no")
			return true
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t"); !errors.Is(err, ErrSuspended) {
		t.Errorf("%v", err)
	}
	if n := hs.count("POST /rooms/" + testRoom + "/invite"); n != 0 {
		t.Errorf("%d invitations", n)
	}
}

// counterOf reads a counter with one label.
func counterOf(t *testing.T, from prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s of %s", name, label)
	return 0
}
