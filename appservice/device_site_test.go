package appservice_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

// site is a homeserver of some kind, and a bridge's appservice that acts on it and can be started anew on the same store.
type site struct {
	t    testing.TB
	hs   *bridgetest.Homeserver
	reg  *appservice.Registration
	path string
	room id.RoomID
	db   *store.Store
	as   *appservice.AppService
	stop func()
}

const ghost = id.UserID("@irc_ann:hs.test")

// newSite makes a site with a public room. The registration asks for devices as a generated one does, unless changed.
func newSite(t testing.TB, kind bridgetest.Option, change ...func(*appservice.Registration)) *site {
	t.Helper()
	s := &site{t: t, hs: bridgetest.NewHomeserver(t, kind), path: filepath.Join(t.TempDir(), "test.db")}
	s.reg = &appservice.Registration{
		ID: "irc", ASToken: "as-secret", HSToken: "hs-secret", SenderLocalpart: "ircbot", MSC4190: true, DeviceManagement: true,
		Namespaces: appservice.Namespaces{Users: []appservice.Namespace{{Exclusive: true, Regex: `^@irc_.*:hs\.test$`}}},
	}
	for _, c := range change {
		c(s.reg)
	}
	s.register(s.hs)
	room, err := s.hs.User("alice").CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"})
	if err != nil {
		t.Fatal(err)
	}
	s.room = room
	s.start()
	return s
}

// withoutLoginRefusal is a registration in which the bridge gave up no logins (io.element.msc4190, device_management).
func withoutLoginRefusal(reg *appservice.Registration) {
	reg.MSC4190, reg.DeviceManagement = false, false
}

func (s *site) register(hs *bridgetest.Homeserver) {
	s.t.Helper()
	err := hs.AddRegistration(&bridgetest.Registration{
		ID: s.reg.ID, ASToken: s.reg.ASToken, HSToken: s.reg.HSToken, SenderLocalpart: s.reg.SenderLocalpart, RateLimited: s.reg.RateLimited,
		Namespaces: bridgetest.Namespaces{Users: []bridgetest.Namespace{{Exclusive: true, Regex: s.reg.Namespaces.Users[0].Regex}}},
		NoLogin:    s.reg.MSC4190, DeviceManagement: s.reg.DeviceManagement,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// start makes the appservice, which is not started: intents work without.
func (s *site) start(change ...func(*appservice.Config)) {
	s.t.Helper()
	db, err := store.Open(context.Background(), "sqlite:"+s.path, store.Options{Log: zerolog.Nop()})
	if err != nil {
		s.t.Fatal(err)
	}
	cfg := appservice.Config{
		Registration: s.reg, HomeserverURL: s.hs.URL(), ServerName: "hs.test", Store: db, Handler: &listener{}, Log: zerolog.Nop(),
	}
	for _, c := range change {
		c(&cfg)
	}
	as, err := appservice.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	ended := false
	s.db, s.as = db, as
	s.stop = func() {
		if ended {
			return
		}
		ended = true
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := as.Stop(ctx); err != nil {
			s.t.Error(err)
		}
		if err := db.Close(); err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(s.stop)
}

// restart is another process on the same store.
func (s *site) restart(change ...func(*appservice.Config)) {
	s.t.Helper()
	s.stop()
	s.start(change...)
}

func mode(m string) func(*appservice.Config) {
	return func(cfg *appservice.Config) { cfg.DeviceMode = m }
}

func (s *site) say(txnID string) error {
	_, err := s.as.Ghost(ghost).SendMessage(context.Background(), s.room, event.EventMessage, map[string]string{"msgtype": "m.text", "body": "hi"}, txnID)
	return err
}

func (s *site) mustSay(txnID string) {
	s.t.Helper()
	if err := s.say(txnID); err != nil {
		s.t.Fatal(err)
	}
}

// known is what the store has of the ghost.
func (s *site) known() *store.Ghost {
	s.t.Helper()
	g, err := s.db.Ghost(context.Background(), string(ghost))
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

// requests are those that the bridge made, by method and path.
func (s *site) requests(method, path string) []bridgetest.Request {
	pattern := regexp.MustCompile(path)
	return s.hs.Requests(func(r bridgetest.Request) bool {
		return r.Method == method && pattern.MatchString(r.Path)
	})
}

// wantDevices fails unless the homeserver has exactly these devices of the ghost.
func (s *site) wantDevices(want ...string) {
	s.t.Helper()
	var got []string
	for _, d := range s.hs.Devices(ghost) {
		got = append(got, string(d))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("%s: the ghost has devices %q, want %q", s.hs.Personality(), got, want)
	}
}

// leaveDevice logs the ghost in, as something else than the bridge of today may have done, and lets the bridge believe
// that the device is the one it made.
func (s *site) leaveDevice(device string) {
	s.t.Helper()
	if err := s.as.Ghost(ghost).EnsureRegistered(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	body := `{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"irc_ann"},"device_id":"` + device + `"}`
	if status, answer := s.raw("POST", "/_matrix/client/v3/login", body); status != http.StatusOK {
		s.t.Fatal(status, answer)
	}
	g := *s.known()
	g.DeviceID, g.DeviceMade = device, true
	if err := s.db.Commit(s.t.Context(), s.db.Epoch(), func(tx *store.Tx) error { return tx.PutGhost(&g) }); err != nil {
		s.t.Fatal(err)
	}
	s.restart()
	s.wantDevices(device)
}

// lose takes a device away on the homeserver, which tells the bridge nothing.
func (s *site) lose(device string) {
	s.t.Helper()
	status, answer := s.raw("DELETE", "/_matrix/client/v3/devices/"+device+"?user_id="+url.QueryEscape(string(ghost)), "{}")
	if status == http.StatusUnauthorized { // it goes with a login of its own
		_, answer = s.raw("POST", "/_matrix/client/v3/login", `{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"irc_ann"},"device_id":"`+device+`"}`)
		token, _ := answer["access_token"].(string)
		status, answer = s.rawAs(token, "POST", "/_matrix/client/v3/logout", "{}")
	}
	if status != http.StatusOK {
		s.t.Fatal(status, answer)
	}
	s.wantDevices()
}

// raw makes a request of its own with the bridge's token.
func (s *site) raw(method, pathAndQuery, body string) (status int, answer map[string]any) {
	s.t.Helper()
	return s.rawAs(s.reg.ASToken, method, pathAndQuery, body)
}

func (s *site) rawAs(token, method, pathAndQuery, body string) (status int, answer map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, s.hs.URL()+pathAndQuery, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, answer
}
