package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// fakeHS answers as Synapse does (registrations, devices, joins, sends), and keeps every request.
type fakeHS struct {
	t          testing.TB
	mu         sync.Mutex
	requests   []string // METHOD path?query body
	registered map[string]bool
	devices    map[string]bool // user + device
	invited    map[string]bool
	private    bool // joins need an invitation
	override   func(w http.ResponseWriter, r *http.Request, body string) bool
}

func newFakeHS(t testing.TB) *fakeHS {
	return &fakeHS{t: t, registered: map[string]bool{}, devices: map[string]bool{}, invited: map[string]bool{}}
}

func (h *fakeHS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	body := string(data)
	q := r.URL.Query()
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/ping") || strings.Contains(r.URL.Path, "/version") {
		answerError(w, 404, codeUnrecognized, "no ping here, and no versions") // and not part of what the tests look at
		return
	}
	user, device := q.Get("user_id"), q.Get("device_id")
	h.requests = append(h.requests, strings.TrimSpace(fmt.Sprintf("%s %s user=%s device=%s %s", r.Method, strings.TrimPrefix(r.URL.Path, "/_matrix/client/v3"), user, device, body)))
	if q.Has("access_token") || r.Header.Get("Authorization") != "Bearer "+testASToken {
		h.t.Errorf("the token is not in the header, or also in the query: %s", r.URL)
	}
	if user == "" {
		h.t.Errorf("no user_id: %s %s", r.Method, r.URL)
	}
	if device != q.Get("org.matrix.msc3202.device_id") {
		h.t.Errorf("the two names of the device differ: %s", r.URL)
	}
	if h.override != nil && h.override(w, r, body) {
		return
	}
	if device != "" && !h.devices[user+device] {
		answerError(w, 400, "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE", "unknown device")
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/_matrix/client/v3")
	switch {
	case path == "/register":
		var req struct {
			Type, Username string
			Inhibit        bool `json:"inhibit_login"`
		}
		_ = json.Unmarshal(data, &req)
		if req.Type != "m.login.application_service" || !req.Inhibit {
			answerError(w, 400, "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED", "inhibit_login is missing")
		} else if h.registered[req.Username] {
			answerError(w, 400, "M_USER_IN_USE", "taken")
		} else {
			h.registered[req.Username] = true
			_, _ = w.Write([]byte(`{"user_id":"x"}`))
		}
	case strings.HasPrefix(path, "/devices/") && r.Method == "PUT":
		h.devices[user+strings.TrimPrefix(path, "/devices/")] = true
		w.WriteHeader(201)
		_, _ = w.Write([]byte(`{}`))
	case path == "/account/whoami":
		_ = json.NewEncoder(w).Encode(map[string]string{"user_id": user, "device_id": device})
	case strings.HasSuffix(path, "/state"):
		_, _ = w.Write([]byte(`[]`))
	case strings.HasPrefix(path, "/join/"):
		if h.private && !h.invited[user] && user != "@ircbot:hs.test" {
			answerError(w, 403, "M_FORBIDDEN", "not invited")
			return
		}
		_, _ = w.Write([]byte(`{"room_id":"` + testRoom + `"}`))
	case strings.HasSuffix(path, "/invite"):
		var req struct {
			UserID string `json:"user_id"`
		}
		_ = json.Unmarshal(data, &req)
		h.invited[req.UserID] = true
		_, _ = w.Write([]byte(`{}`))
	case strings.Contains(path, "/send/"), strings.Contains(path, "/redact/"), strings.Contains(path, "/state/") && r.Method == "PUT":
		_, _ = w.Write([]byte(`{"event_id":"$sent"}`))
	default:
		_, _ = w.Write([]byte(`{}`))
	}
}

// count says how many requests began like that, and forgets none.
func (h *fakeHS) count(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (h *fakeHS) find(prefix string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		if strings.HasPrefix(r, prefix) {
			return r
		}
	}
	return ""
}

const ghostA = id.UserID("@irc_a:hs.test")

func (f *fixture) send(user id.UserID, txnID string) (id.EventID, error) {
	return f.as.Ghost(user).SendMessage(context.Background(), testRoom, event.EventMessage, map[string]string{"body": "hi"}, txnID)
}

func TestIntent_FirstMessage_RegistersMakesADeviceJoinsAndSends(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	ev, err := f.send(ghostA, "txn1")
	if err != nil || ev != "$sent" {
		t.Fatal(ev, err)
	}
	g, err := f.store.Ghost(context.Background(), string(ghostA))
	if err != nil || !g.Registered || !g.DeviceMade || len(g.DeviceID) < 10 {
		t.Fatalf("%+v %v", g, err)
	}
	for _, want := range []string{
		`POST /register user=@irc_a:hs.test device= {"inhibit_login":true,"type":"m.login.application_service","username":"irc_a"}`,
		`PUT /devices/` + g.DeviceID + ` user=@irc_a:hs.test device= {`,
		`GET /account/whoami user=@irc_a:hs.test device=` + g.DeviceID,
		`POST /join/` + testRoom + ` user=@irc_a:hs.test device= `,
		`PUT /rooms/` + testRoom + `/send/m.room.message/txn1 user=@irc_a:hs.test device=` + g.DeviceID + ` {"body":"hi"}`,
	} {
		if hs.count(want) != 1 {
			t.Errorf("%d of %q in\n%s", hs.count(want), want, strings.Join(hs.requests, "\n"))
		}
	}
}

func TestF1_Token_IsInTheHeaderOnly(t *testing.T) { // the fake homeserver fails the test otherwise
	f := newFixture(t, newFakeHS(t))
	bot := f.as.Bot()
	ctx := context.Background()
	if _, err := f.send(ghostA, "t"); err != nil {
		t.Error(err)
	}
	if _, err := bot.Upload(ctx, strings.NewReader("data"), 4, "text/plain", "a.txt"); err != nil {
		t.Error(err)
	}
	resp, err := bot.Download(ctx, id.ContentURI{Homeserver: "hs.test", FileID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

func TestF2_Token_IsInNoErrorAndNoLog(t *testing.T) {
	var log bytes.Buffer
	hs := newFakeHS(t)
	f := newFixture(t, hs, func(c *Config) { c.Log = zerolog.New(zerolog.SyncWriter(&log)) })
	f.mustPut("1", events(message("$1"), "5"))
	hs.mu.Lock()
	hs.override = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		answerError(w, 500, "M_UNKNOWN", "broken")
		return true
	}
	hs.mu.Unlock()
	_, err := f.send(ghostA, "t")
	if err == nil {
		t.Fatal("no error")
	}
	f.stop()
	for _, secret := range []string{testASToken, testHSToken} {
		if strings.Contains(err.Error()+log.String(), secret) {
			t.Errorf("a token is in %v or in\n%s", err, log.String())
		}
	}
}

func TestE11_Device_IsNamedOnlyWhereItMatters(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	ctx := context.Background()
	a := f.as.Ghost(ghostA)
	device, err := a.EnsureDevice(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, act := range []func() error{
		func() error { _, err := a.SendMessage(ctx, testRoom, event.EventMessage, 1, "t"); return err },
		func() error { _, err := a.SendState(ctx, testRoom, event.StateTopic, "", 1); return err },
		func() error { _, err := a.Redact(ctx, testRoom, "$x", "why", "t2"); return err },
		func() error { return a.Typing(ctx, testRoom, true, time.Second) },
		func() error { return a.SetDisplayName(ctx, "A") },
		func() error { return a.Leave(ctx, testRoom, "bye") },
	} {
		if err := act(); err != nil {
			t.Error(err)
		}
	}
	for prefix, with := range map[string]bool{
		"PUT /rooms/" + testRoom + "/send/": true, "PUT /rooms/" + testRoom + "/state/": true, "PUT /rooms/" + testRoom + "/redact/": true,
		"POST /register user=@irc_a": false, "PUT /devices/": false, "PUT /profile/": false, "POST /join/": false, "PUT /rooms/" + testRoom + "/typing/": false, "POST /rooms/" + testRoom + "/leave": false,
	} {
		r := hs.find(prefix)
		if r == "" || strings.Contains(r, "device="+string(device)) != with {
			t.Errorf("%q: device named %v, want %v", r, !with, with)
		}
	}
}

func TestC5_LostAnswerOfThePut_LeadsToTheSameDevice(t *testing.T) {
	hs := newFakeHS(t)
	var first string
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.URL.Path, "/devices/") && first == "" {
			first = r.URL.Path
			panic(http.ErrAbortHandler)
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.as.Ghost(ghostA).EnsureDevice(t.Context()); err == nil {
		t.Fatal("no error although the answer was lost")
	}
	f.crash()
	device, err := f.as.Ghost(ghostA).EnsureDevice(t.Context())
	if err != nil || !strings.HasSuffix(first, "/"+string(device)) {
		t.Errorf("the first was %s, then %s %v", first, device, err)
	}
}

func TestDevice_OnePutPerGhost_AlsoAfterARestartAndForConcurrentCalls(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := f.send(ghostA, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f.crash()
	if _, err := f.send(ghostA, "after"); err != nil {
		t.Error(err)
	}
	if r, d, j := hs.count("POST /register user=@irc_a"), hs.count("PUT /devices/"), hs.count("POST /join/"); r != 1 || d != 1 || j != 1 {
		t.Errorf("%d registrations, %d devices, %d joins", r, d, j)
	}
}

func TestE6_DeviceGone_IsMadeAnewOnceAndTheMessageArrives(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	clear(hs.devices)
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); err != nil {
		t.Error(err)
	}
	if n := hs.count("PUT /devices/"); n != 2 {
		t.Errorf("%d devices were made, want 2", n)
	}
	g, _ := f.store.Ghost(context.Background(), string(ghostA))
	if want := "PUT /rooms/" + testRoom + "/send/m.room.message/t2 user=@irc_a:hs.test device=" + g.DeviceID; hs.count(want) != 1 {
		t.Errorf("it was not sent with the new device")
	}
}

// The homeserver's database was put back: it has neither the ghost nor its device, and so none of its keys.
func TestC2_GhostThatTheHomeserverLost_GetsAnotherDeviceThanTheOneWithKeys(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	before, _ := f.store.Ghost(context.Background(), string(ghostA))
	hs.mu.Lock()
	clear(hs.devices)
	clear(hs.registered)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if r.URL.Query().Get("user_id") != string(ghostA) || hs.registered["irc_a"] || strings.HasSuffix(r.URL.Path, "/register") {
			return false
		}
		answerError(w, 403, "M_FORBIDDEN", "Application service has not registered this user")
		return true
	}
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); err != nil {
		t.Fatal(err)
	}
	after, _ := f.store.Ghost(context.Background(), string(ghostA))
	if after.DeviceID == before.DeviceID || !after.DeviceMade || hs.count("PUT /devices/") != 2 {
		t.Errorf("before %+v, after %+v, %d devices", before, after, hs.count("PUT /devices/"))
	}
}

func TestE6_ForbiddenForAnotherReason_ResetsNothing(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.URL.Path, "/send/") {
			answerError(w, 403, "M_FORBIDDEN", "no power")
			return true
		}
		return false
	}
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); !errors.Is(err, mautrix.MForbidden) {
		t.Errorf("%v", err)
	}
	if n := hs.count("PUT /devices/"); n != 1 {
		t.Errorf("%d devices were made", n)
	}
}

func TestC17_E8_NoDevicesOnTheHomeserver_SendsWithoutOrSaysSo(t *testing.T) {
	for name, override := range map[string]func(w http.ResponseWriter, r *http.Request, _ string) bool{
		"dendrite": func(w http.ResponseWriter, r *http.Request, _ string) bool {
			if strings.Contains(r.URL.Path, "/devices/") {
				answerError(w, 404, "M_FORBIDDEN", "no such device")
				return true
			}
			return false
		},
		"ignores device_id": func(w http.ResponseWriter, r *http.Request, _ string) bool {
			if strings.HasSuffix(r.URL.Path, "/whoami") {
				_, _ = w.Write([]byte(`{"user_id":"@irc_a:hs.test"}`))
				return true
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			hs := newFakeHS(t)
			hs.override = override
			f := newFixture(t, hs)
			for i := range 3 {
				if _, err := f.send(ghostA, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			}
			if n := hs.count("PUT /devices/"); n != 1 {
				t.Errorf("the homeserver was asked %d times", n)
			}
			strict := newFixture(t, hs, func(c *Config) { c.DeviceMode = DeviceMSC4190 })
			if _, err := strict.send(ghostA, "x"); !errors.Is(err, ErrNoDevices) {
				t.Errorf("%v", err)
			}
			none := newFixture(t, hs, func(c *Config) { c.DeviceMode = DeviceNone })
			before := hs.count("PUT /devices/")
			if _, err := none.send(ghostA, "y"); err != nil || hs.count("PUT /devices/") != before {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestDisplayName_IsSetOnlyWhenItChanges(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	for _, name := range []string{"A", "A", "B", "B"} {
		if err := f.as.Ghost(ghostA).SetDisplayName(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	f.crash()
	if err := f.as.Ghost(ghostA).SetDisplayName(t.Context(), "B"); err != nil {
		t.Error(err)
	}
	if n := hs.count("PUT /profile/"); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

func TestRegister_BadUserIDs_AreRefusedBeforeTheHomeserverSeesThem(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	for _, user := range []id.UserID{"@irc_A:hs.test", "@irc_a b:hs.test", "@irc_a:other.test", "@alice:hs.test", "irc_a", "@:hs.test", id.UserID("@irc_" + strings.Repeat("x", 250) + ":hs.test")} {
		if err := f.as.Ghost(user).EnsureRegistered(t.Context()); !IsPermanent(err) {
			t.Errorf("%s: %v", user, err)
		}
	}
	if n := hs.count("POST /register user=@irc_"); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestB9_ExclusiveUser_IsPermanentAndSaysWhatToMend(t *testing.T) {
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		answerError(w, 400, "M_EXCLUSIVE", "no")
		return true
	}
	f := newFixture(t, hs)
	if err := f.as.Ghost(ghostA).EnsureRegistered(t.Context()); !IsPermanent(err) || !strings.Contains(err.Error(), "namespaces") {
		t.Errorf("%v", err)
	}
}

func TestUpload_OverTheLimit_IsRefusedBeforeAByteIsSent(t *testing.T) {
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.HasSuffix(r.URL.Path, "/config") {
			_, _ = w.Write([]byte(`{"m.upload.size":10}`))
			return true
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.as.Bot().Upload(t.Context(), strings.NewReader("12345678901"), 11, "a/b", "x"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	if n := hs.count("POST /_matrix/media/v3/upload"); n != 0 {
		t.Error("it was sent")
	}
	if _, err := f.as.Bot().Upload(t.Context(), strings.NewReader("1234567890"), 10, "a/b", "x"); err != nil {
		t.Error(err)
	}
}

func TestSend_WithoutATransactionID_IsRefused(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	if _, err := f.send(ghostA, ""); err == nil {
		t.Error("sent")
	}
}
