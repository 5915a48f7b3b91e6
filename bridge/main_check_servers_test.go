package bridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/ports"
)

// site is a bridge's directory beside a homeserver, as its administrator has it before the first run.
type site struct {
	*testing.T
	hs           *bridgetest.Homeserver
	net          *bridgetest.Network
	config       string
	registration string
	listen       string
	patience     time.Duration
}

// newSite writes a configuration and has the program make the registration; the homeserver is not told of it.
func newSite(t *testing.T, options ...bridgetest.Option) *site {
	t.Helper()
	listen, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	s := &site{T: t, hs: bridgetest.NewHomeserver(t, options...), net: bridgetest.NewNetwork(), listen: listen, patience: time.Minute}
	dir := t.TempDir()
	s.config, s.registration = filepath.Join(dir, "config.yaml"), filepath.Join(dir, "registration.yaml")
	s.write(s.config, `
homeserver: {address: "`+s.hs.URL()+`", domain: "`+s.hs.Domain()+`"}
appservice: {id: test, listen: "`+listen+`", address: "http://`+listen+`", bot: testbot, ghosts: test_, registration: "`+s.registration+`"}
database: "sqlite:`+filepath.Join(dir, "trestle.db")+`"
`)
	if status, out := s.run("registration"); status != 0 {
		t.Fatal(out)
	}
	return s
}

func (s *site) write(path, text string) {
	s.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// tell gives the homeserver its copy of the registration, in which pairs of texts are replaced.
func (s *site) tell(oldNew ...string) {
	s.Helper()
	text, err := os.ReadFile(s.registration)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(string(text), oldNew[i]) {
			s.Fatalf("%q is not in the registration", oldNew[i])
		}
	}
	reg, err := bridgetest.ParseRegistration([]byte(strings.NewReplacer(oldNew...).Replace(string(text))))
	if err == nil {
		err = s.hs.AddRegistration(reg)
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) run(args ...string) (status int, out string) {
	var both bytes.Buffer
	status = bridge.RunPatient(s.net, s.patience, nil, &both, &both, append(args, "-config", s.config)...)
	return status, s.stable(both.String())
}

var (
	took  = regexp.MustCompile(`in \d+ ms`)
	probe = regexp.MustCompile(`trestle-check-\w+`)
)

// stable takes out what is another in each run.
func (s *site) stable(out string) string {
	out = strings.NewReplacer(filepath.Dir(s.config), "/etc/trestle", s.hs.URL(), "http://localhost:8008", s.listen, "localhost:29400").Replace(out)
	return probe.ReplaceAllString(took.ReplaceAllString(out, "in 7 ms"), "trestle-check-1")
}

// clean fails the test when a check has left anything behind.
func (s *site) clean() {
	s.Helper()
	bot := id.NewUserID("testbot", s.hs.Domain())
	if devices := s.hs.Devices(bot); len(devices) != 0 {
		s.Errorf("devices of the bot are left: %v", devices)
	}
	if s.hs.Registered(bot) {
		s.Error("the bot was registered")
	}
	for _, r := range s.hs.Requests(nil) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/register") {
			s.Errorf("check has registered somebody: %s", r.Path)
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *bridge.UpdateGolden {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("got\n%s\nwant (%s, %v)\n%s", got, path, err, want)
	}
}

// What check says of each homeserver that was told of the registration as check itself says.
func TestCheck_OnEveryHomeserver_SaysWhatItHasAndLeavesNothing(t *testing.T) {
	for _, personality := range bridgetest.Personalities() {
		t.Run(personality.String(), func(t *testing.T) {
			s := newSite(t, personality)
			if personality == bridgetest.Continuwuity {
				s.patience = time.Millisecond // nothing comes
			}
			s.tell()
			status, out := s.run("check")
			if status != 0 {
				t.Errorf("the status is %d", status)
			}
			golden(t, filepath.Join("testdata", "check", strings.ToLower(personality.String())+".txt"), out)
			s.clean()
		})
	}
}

func TestCheck_HomeserverThatWasNotTold_SaysHowInItsWords(t *testing.T) {
	for _, personality := range bridgetest.Personalities() {
		t.Run(personality.String(), func(t *testing.T) {
			s := newSite(t, personality)
			status, out := s.run("check")
			if status != 1 {
				t.Errorf("the status is %d", status)
			}
			golden(t, filepath.Join("testdata", "check", strings.ToLower(personality.String())+"-untold.txt"), out)
		})
	}
}

func TestCheck_SwitchesThatAreOff_AreFoundOutAndNamed(t *testing.T) {
	for name, c := range map[string]struct {
		options  bridgetest.Options
		patience time.Duration
		says     []string
	}{
		"both": {bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true}, time.Millisecond, []string{
			"WARN  to-device     the homeserver did not send", "→ write msc2409_to_device_messages_enabled: true under experimental_features in homeserver.yaml",
			"WARN  device lists  the homeserver did not send", "→ write msc3202_transaction_extensions: true under experimental_features in homeserver.yaml",
		}},
		"to-device": {bridgetest.Options{NoToDevice: true}, time.Second, []string{
			"→ write msc2409_to_device_messages_enabled: true under experimental_features in homeserver.yaml",
		}},
		"extensions": {bridgetest.Options{NoDeviceExtensions: true}, time.Minute, []string{
			"OK    to-device ", "WARN  device lists  the homeserver does not send", "→ write msc3202_transaction_extensions: true under",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.options)
			s.patience = c.patience
			s.tell()
			status, out := s.run("check")
			if name == "both" {
				golden(t, filepath.Join("testdata", "check", "synapse-off.txt"), out)
			}
			for _, text := range c.says {
				if status != 0 || !strings.Contains(out, text) {
					t.Errorf("status %d, and it does not say %q:\n%s", status, text, out)
				}
			}
			s.clean()
		})
	}
}

// The homeserver's copy of the registration is older than the bridge's.
func TestCheck_CopyThatIsOlder_IsFoundOutWithoutMakingAnything(t *testing.T) {
	for name, c := range map[string]struct {
		personality bridgetest.Personality
		oldNew      []string
		status      int
		says        string
	}{
		"as_token":             {bridgetest.Synapse, []string{"as_token: '", "as_token: 'old"}, 1, "FAIL  token         Synapse does not know the as_token"},
		"hs_token":             {bridgetest.Synapse, []string{"hs_token: '", "hs_token: 'old"}, 1, "FAIL  ping          the homeserver shows another hs_token"},
		"hs_token, no ping":    {bridgetest.Dendrite, []string{"hs_token: '", "hs_token: 'old"}, 1, "FAIL  ping          the homeserver shows another hs_token"},
		"id":                   {bridgetest.Synapse, []string{"id: 'test'", "id: 'old'"}, 1, "FAIL  ping          the homeserver knows the as_token under another id than test"},
		"sender":               {bridgetest.Synapse, []string{"sender_localpart: 'testbot'", "sender_localpart: 'old'"}, 1, "takes the bridge for @old:hs.test, not for @testbot:hs.test"},
		"aliases":              {bridgetest.Synapse, []string{"'^#test_", "'^#old_"}, 0, "WARN  namespaces    the homeserver did not ask the bridge for #test_"},
		"aliases, no ping":     {bridgetest.Dendrite, []string{"'^#test_", "'^#old_"}, 1, "FAIL  ping          Dendrite has no ping, and did not ask at "},
		"url":                  {bridgetest.Synapse, []string{"url: 'http://", "url: 'http://127.0.0.1:1/"}, 1, "FAIL  ping          the homeserver does not reach"},
		"io.element.msc4190":   {bridgetest.Synapse, []string{"io.element.msc4190: true", "io.element.msc4190: false"}, 0, "WARN  login         Synapse lets ghosts log in"},
		"device_management":    {bridgetest.Tuwunel, []string{"device_management: true", "device_management: false"}, 0, "→ look that /etc/trestle/registration.yaml says device_management: true; then in the admin room"},
		"users":                {bridgetest.Continuwuity, []string{"'^@test_", "'^@old_"}, 1, "FAIL  ghosts        the homeserver does not let the bridge be @test_"},
		"nothing between them": {bridgetest.Tuwunel, nil, 0, "OK    devices "},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.personality)
			s.tell(c.oldNew...)
			s.patience = time.Second
			status, out := s.run("check")
			if status != c.status || !strings.Contains(out, c.says) {
				t.Errorf("status %d, want %d and %q:\n%s", status, c.status, c.says, out)
			}
			s.clean()
		})
	}
}

// Whoever is tired of waiting leaves nothing behind either.
// A registration that was written by hand may claim no aliases.
func TestCheck_RegistrationWithoutAliases_IsNotSaidToLackThePing(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	text, err := os.ReadFile(s.registration)
	if err != nil {
		t.Fatal(err)
	}
	s.write(s.registration, regexp.MustCompile(`(?m)^  aliases:\n(    .*\n)+`).ReplaceAllString(string(text), "  aliases: []\n"))
	s.tell()
	s.patience = time.Second
	if status, out := s.run("check"); status != 0 || !strings.Contains(out, "OK    ping") || strings.Contains(out, "has no ping") {
		t.Errorf("status %d:\n%s", status, out)
	}
}

func TestCheck_Interrupted_DeletesItsDevice(t *testing.T) {
	s := newSite(t, bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true})
	s.tell()
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Env = append(os.Environ(), commandVariable+"="+string(must(json.Marshal([]string{"check", "-config", s.config}))(t)))
	var mu sync.Mutex
	s.hs.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/sendToDevice/") {
			mu.Lock()
			defer mu.Unlock()
			if len(s.hs.Devices(id.NewUserID("testbot", s.hs.Domain()))) != 1 {
				t.Error("there is no device to be deleted")
			}
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		return false
	})
	var out bytes.Buffer
	cmd.Stdout = &out
	mu.Lock()
	err := cmd.Start()
	mu.Unlock()
	if err == nil {
		err = cmd.Wait()
	}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out.String(), "FAIL  check         interrupted") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	s.clean()
}

func TestCheck_JSON_IsOneFindingALine(t *testing.T) {
	s := newSite(t, bridgetest.Dendrite)
	s.tell()
	status, out := s.run("check", "-json")
	mends := 0
	for line := range strings.Lines(out) {
		var found struct{ Verdict, About, Text, Mend string }
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&found); err != nil || found.Verdict == "" || found.About == "" || found.Text == "" {
			t.Errorf("%v: %s", err, line)
		}
		if found.Mend != "" {
			mends++
		}
	}
	if status != 0 || mends == 0 {
		t.Errorf("status %d, %d mends:\n%s", status, mends, out)
	}
}

// Events that wait for the bridge stay with the homeserver, and check says that they keep it from finding out.
func TestCheck_EventsThatWait_StayWithTheHomeserver(t *testing.T) {
	s := newSite(t)
	s.tell()
	alice := s.hs.User("alice")
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	_, err := alice.CreateRoom(ctx, bridgetest.RoomOptions{Invite: []id.UserID{id.NewUserID("testbot", s.hs.Domain())}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.hs.WaitAppService(ctx, "test", func(a bridgetest.AppServiceState) bool { return !a.Up }); err != nil {
		t.Fatal(err)
	}
	s.patience = time.Second
	status, out := s.run("check")
	if status != 0 || !strings.Contains(out, "WARN  to-device     cannot be found out now: the homeserver has older events for the bridge") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if state := s.hs.AppServiceState("test"); state.Pending == 0 {
		t.Errorf("what waited was taken: %+v", state)
	}
	s.clean()
}

func TestCheck_SomebodyElseAnswersThePing_IsFoundOut(t *testing.T) {
	s := newSite(t)
	s.tell()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer elsewhere.Close()
	s.hs.SetAppServiceURL("test", elsewhere.URL)
	if status, out := s.run("check"); status != 1 || !strings.Contains(out, "FAIL  ping          somebody else answered the homeserver's ping") {
		t.Errorf("status %d:\n%s", status, out)
	}
	s.clean()
}

// What check causes is taken, so that the homeserver does not hold the bridge for one that is down.
func TestCheck_WhatItCausesItself_IsTaken(t *testing.T) {
	s := newSite(t)
	s.tell()
	if status, out := s.run("check"); status != 0 {
		t.Fatal(out)
	}
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	if _, err := s.hs.WaitAppService(ctx, "test", func(a bridgetest.AppServiceState) bool { return a.Sent > 0 }); err != nil {
		t.Error(err)
	}
	if state := s.hs.AppServiceState("test"); state.Failed > 0 {
		t.Errorf("something was refused: %+v", state)
	}
}

// A bridge that runs has its address, and gets what the homeserver sends.
func TestCheck_BesideARunningBridge_SaysWhatItCannotFindOut(t *testing.T) {
	c := newCrossing(t)
	s := &site{T: t, hs: c.hs, net: c.net, config: filepath.Join(t.TempDir(), "config.yaml"), registration: c.b.Config.Appservice.Registration, listen: c.b.Config.Appservice.Listen, patience: time.Minute}
	s.write(s.config, `
homeserver: {address: "`+s.hs.URL()+`", domain: "`+s.hs.Domain()+`"}
appservice: {id: test, listen: "`+s.listen+`", address: "http://`+s.listen+`", bot: `+c.b.Config.Appservice.Bot+`, ghosts: `+c.b.Config.Appservice.Ghosts+`, registration: "`+s.registration+`"}
database: "`+c.b.Config.Database+`"
`)
	before := len(c.hs.Devices(c.b.BotID()))
	status, out := s.run("check")
	for _, text := range []string{"the homeserver reached the running bridge", "WARN  to-device     cannot be found out while the bridge runs", "stop it and check again; or look yourself: write msc2409_to"} {
		if status != 0 || !strings.Contains(out, text) {
			t.Errorf("status %d, and it does not say %q:\n%s", status, text, out)
		}
	}
	if after := len(c.hs.Devices(c.b.BotID())); after != before {
		t.Errorf("the bot has %d devices, and had %d", after, before)
	}
	// It goes on, and a ghost that it has made is asked for.
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hello"))
	c.sees(bridgetest.Message(c.bob(), "hello"))
	if status, out = s.run("check"); status != 0 || !strings.Contains(out, "OK    ghosts        the homeserver takes the bridge for "+string(c.bob())) {
		t.Errorf("status %d:\n%s", status, out)
	}
}
