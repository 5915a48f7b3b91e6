package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
	if strings.HasSuffix(r.URL.Path, "/ping") {
		answerError(w, 404, codeUnrecognized, "no ping here") // and not part of what the tests look at
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

func TestC15_UserInUse_IsOurs(t *testing.T) {
	hs := newFakeHS(t)
	hs.registered["irc_a"] = true
	f := newFixture(t, hs)
	if err := f.as.Ghost(ghostA).EnsureRegistered(t.Context()); err != nil {
		t.Error(err)
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

func TestJoin_Forbidden_IsInvitedByTheBot(t *testing.T) {
	hs := newFakeHS(t)
	hs.private = true
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t"); err != nil {
		t.Fatal(err)
	}
	if r := hs.find("POST /rooms/" + testRoom + "/invite"); !strings.Contains(r, "user=@ircbot:hs.test") || !strings.Contains(r, string(ghostA)) {
		t.Errorf("the invitation was %q", r)
	}
}

func TestJoin_AfterAKick_JoinsAgain(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	f.mustPut("1", events(`{"type":"m.room.member","event_id":"$k","room_id":"`+testRoom+`","sender":"@op:hs.test","state_key":"`+string(ghostA)+`","content":{"membership":"leave"}}`))
	f.idle()
	if _, err := f.send(ghostA, "t2"); err != nil {
		t.Fatal(err)
	}
	if n := hs.count("POST /join/"); n != 2 {
		t.Errorf("%d joins, want 2", n)
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

func TestPing_HomeserverCallsBack(t *testing.T) {
	var f *fixture
	ready := make(chan struct{})
	f = newFixture(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-ready
		if !strings.HasSuffix(r.URL.Path, "/v1/appservice/irc/ping") {
			_, _ = w.Write([]byte(`{}`))
			return
		}
		code, _ := f.do("POST", "/_matrix/app/v1/ping", `{"transaction_id":"x"}`, "Bearer "+testHSToken)
		fmt.Fprintf(w, `{"duration_ms":%d}`, code)
	}))
	close(ready)
	if took, err := f.as.Ping(t.Context()); err != nil || took != 200*time.Millisecond {
		t.Error(took, err)
	}
	without := newFixture(t, newFakeHS(t))
	if _, err := without.as.Ping(t.Context()); !errors.Is(err, ErrPingUnsupported) {
		t.Error(err)
	}
}

func TestD1_D2_RateLimit_WaitsAsTheHomeserverSays(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		header, body string
		min, max     time.Duration
	}{
		{"2", `{"retry_after_ms":5}`, 2 * time.Second, 2 * time.Second},
		{"", `{"retry_after_ms":1437}`, 1437 * time.Millisecond, 1437 * time.Millisecond},
		{"0", ``, minLimitWait, minLimitWait},
		{"-5", ``, minLimitWait, minLimitWait},
		{"", `{"retry_after_ms":-1}`, minLimitWait, minLimitWait},
		{now.Add(-time.Hour).UTC().Format(http.TimeFormat), ``, minLimitWait, minLimitWait},
		{now.Add(time.Minute).UTC().Format(http.TimeFormat), ``, 50 * time.Second, time.Minute},
		{"3600", ``, time.Hour, time.Hour},
		{"soon", `{}`, time.Second, time.Second},
		{"", `nonsense`, time.Second, time.Second},
		{"", `{"retry_after_ms":1e300}`, time.Hour, 1e18},
	} {
		resp := &http.Response{Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.body))}
		if c.header != "" {
			resp.Header.Set("Retry-After", c.header)
		}
		if wait := limitWait(resp, 1); wait < c.min || wait > c.max {
			t.Errorf("%q %q: %v", c.header, c.body, wait)
		}
		if rest, _ := io.ReadAll(resp.Body); string(rest) != c.body {
			t.Errorf("the body is gone: %q", rest)
		}
	}
}

func TestRateLimit_OnlyIdempotentRequestsAreRepeated(t *testing.T) {
	hs := newFakeHS(t)
	limited := map[string]int{}
	hs.override = func(w http.ResponseWriter, r *http.Request, body string) bool {
		key := r.Method + r.URL.Path
		if limited[key]++; limited[key] == 1 {
			answerError(w, 429, "M_LIMIT_EXCEEDED", "slow down")
			return true
		}
		return false
	}
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	f := newFixture(t, hs, func(c *Config) { c.HTTPClient = &http.Client{Transport: limitHeader{base}} })
	if _, err := f.send(ghostA, "t1"); !errors.Is(err, mautrix.MLimitExceeded) {
		t.Errorf("register, device and join are repeatable, send is left to the caller: %v", err)
	}
	if body := hs.find("PUT /rooms/" + testRoom + "/send/"); !strings.HasSuffix(body, `{"body":"hi"}`) {
		t.Errorf("sent %q", body)
	}
	if _, err := f.as.Bot().CreateRoom(t.Context(), &mautrix.ReqCreateRoom{}); !errors.Is(err, mautrix.MLimitExceeded) || hs.count("POST /createRoom") != 1 {
		t.Errorf("creating a room was repeated: %v", err)
	}
}

func TestRateLimit_OfWhatIsSent_IsTheCallersAtOnce(t *testing.T) {
	for what, act := range map[string]func(i *Intent) error{
		"send": func(i *Intent) error {
			_, err := i.SendMessage(context.Background(), "!a/send/b:hs.test", event.EventMessage, map[string]string{}, "t")
			return err
		},
		"state": func(i *Intent) error {
			_, err := i.SendState(context.Background(), testRoom, event.StateTopic, "", map[string]string{})
			return err
		},
		"redact": func(i *Intent) error {
			_, err := i.Redact(context.Background(), testRoom, "$e", "", "t")
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			hs := newFakeHS(t)
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				if !strings.Contains(r.URL.Path, "/"+what+"/") || r.Method != "PUT" {
					return false
				}
				w.WriteHeader(429)
				_, _ = w.Write([]byte(`{"errcode":"M_LIMIT_EXCEEDED","error":"slow down","retry_after_ms":1437}`))
				return true
			}
			f := newFixture(t, hs)
			err := act(f.as.Ghost(ghostA))
			if got := RetryAfter(err); got != 1437*time.Millisecond || !errors.Is(err, mautrix.MLimitExceeded) {
				t.Errorf("wait %v after %v", got, err)
			}
			if n := hs.count("PUT /rooms/"); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
	if RetryAfter(errTest) != 0 || RetryAfter(nil) != 0 {
		t.Error("an error that says nothing asks to wait")
	}
}

func TestRateLimit_LongerThanHalfAMinuteInAll_IsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		tr := &transport{log: zerolog.Nop(), base: roundTripper(func(*http.Request) (*http.Response, error) {
			requests++
			return &http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {"14"}}, Body: http.NoBody}, nil
		})}
		begin := time.Now()
		req, err := http.NewRequest(http.MethodGet, "http://hs.test/_matrix/client/v3/devices", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil || resp.StatusCode != 429 || requests != 3 || time.Since(begin) != 28*time.Second {
			t.Errorf("%d requests in %v, then %v %v", requests, time.Since(begin), resp, err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestSend_RefusedInARoomThatTheGhostWasTakenOutOf_JoinsAndSendsOnceMore(t *testing.T) {
	hs := newFakeHS(t)
	in, asked := false, 0
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		switch {
		case strings.Contains(r.URL.Path, "/join/"):
			in = true
		case strings.Contains(r.URL.Path, "/send/") && !in:
			answerError(w, 403, "M_FORBIDDEN", "User not in room")
			return true
		case strings.HasSuffix(r.URL.Path, "/whoami"): // only once: then this homeserver does not know the question
			asked++
			if asked > 1 {
				answerError(w, 404, codeUnrecognized, "")
				return true
			}
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	in = false
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); err != nil {
		t.Error(err)
	}
	if n := hs.count("PUT /rooms/" + testRoom + "/send/m.room.message/t2 "); n != 2 {
		t.Errorf("t2 was sent %d times, want 2", n)
	}
}

func TestSend_RefusedAndTheRoomCannotBeJoinedNow_IsNoRefusal(t *testing.T) {
	hs := newFakeHS(t)
	broken := false
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		switch {
		case broken && strings.Contains(r.URL.Path, "/join/"):
			answerError(w, 502, "M_UNKNOWN", "restarting")
			return true
		case broken && strings.Contains(r.URL.Path, "/send/"):
			answerError(w, 403, "M_FORBIDDEN", "User not in room")
			return true
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	broken = true
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); err == nil || errors.Is(err, mautrix.MForbidden) {
		t.Errorf("%v", err)
	}
}

func TestIntent_HomeserverPutBackToAnOlderState_RegistersTheGhostAgain(t *testing.T) {
	for what, act := range map[string]func(f *fixture) error{
		"send": func(f *fixture) error { _, err := f.send(ghostA, "t2"); return err },
		"name": func(f *fixture) error { return f.as.Ghost(ghostA).SetDisplayName(context.Background(), "other") },
	} {
		t.Run(what, func(t *testing.T) {
			hs := newFakeHS(t)
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				if user := r.URL.Query().Get("user_id"); user == string(ghostA) && !hs.registered["irc_a"] && !strings.HasSuffix(r.URL.Path, "/register") {
					answerError(w, 403, "M_FORBIDDEN", "Application service has not registered this user ("+user+")")
					return true
				}
				return false
			}
			f := newFixture(t, hs)
			if _, err := f.send(ghostA, "t1"); err != nil {
				t.Fatal(err)
			}
			if err := f.as.Ghost(ghostA).SetDisplayName(t.Context(), "name"); err != nil {
				t.Fatal(err)
			}
			hs.mu.Lock()
			clear(hs.registered)
			clear(hs.devices)
			hs.mu.Unlock()
			if err := act(f); err != nil {
				t.Error(err)
			}
			if n := hs.count("POST /register user=" + string(ghostA)); n != 2 {
				t.Errorf("%d registrations, want 2", n)
			}
		})
	}
}

// limitHeader makes the waits of the test short.
type limitHeader struct{ http.RoundTripper }

func (l limitHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil && resp.StatusCode == 429 {
		resp.Header.Set("Retry-After", "0")
	}
	return resp, err
}

func TestRedirect_ToAnotherPort_NeverCarriesTheToken(t *testing.T) {
	var seen []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.Header.Get("Authorization"))
		_, _ = w.Write([]byte("data"))
	}))
	defer elsewhere.Close()
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.URL.Path, "/send/") || strings.Contains(r.URL.Path, "/download/") || strings.Contains(r.URL.Path, "/joined_members") {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t"); !errors.Is(err, errRedirect) {
		t.Errorf("%v", err)
	}
	if _, err := f.as.Bot().Members(t.Context(), testRoom); !errors.Is(err, errRedirect) {
		t.Errorf("%v", err)
	}
	resp, err := f.as.Bot().Download(t.Context(), id.ContentURI{Homeserver: "hs.test", FileID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(data) != "data" || fmt.Sprint(seen) != "[GET ]" {
		t.Errorf("%q, elsewhere saw %q", data, seen)
	}
}

func TestSend_WithoutATransactionID_IsRefused(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	if _, err := f.send(ghostA, ""); err == nil {
		t.Error("sent")
	}
}

type querier struct {
	*recorder
	exists map[string]bool
}

func (q querier) QueryUser(_ context.Context, user id.UserID) (bool, error) {
	return q.exists[string(user)], nil
}
func (q querier) QueryAlias(_ context.Context, alias id.RoomAlias) (bool, error) {
	if alias == "#irc_err:hs.test" {
		return false, errTest
	}
	return q.exists[string(alias)], nil
}

func TestQueries_AreAnsweredByTheHandler(t *testing.T) {
	q := querier{newRecorder(), map[string]bool{"@irc_a:hs.test": true, "@alice:hs.test": true, "#irc_a/b:hs.test": true}}
	f := newFixture(t, nil, func(c *Config) { c.Handler = q })
	for path, want := range map[string]int{
		"users/%40irc_a%3Ahs.test": 200, "users/@irc_a:hs.test": 200, "users/%40irc_b%3Ahs.test": 404, "users/%40alice%3Ahs.test": 404,
		"rooms/%23irc_a%2Fb%3Ahs.test": 200, "rooms/%23irc_c%3Ahs.test": 404, "rooms/%23irc_err%3Ahs.test": 500,
	} {
		if code, body := f.do("GET", "/_matrix/app/v1/"+path, "", "Bearer "+testHSToken); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
