package appservice_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// bodies keeps what the bridge sends to an endpoint, as "METHOD path?query" and body.
type bodies struct {
	mu   sync.Mutex
	list []sent
}

type sent struct {
	request *http.Request
	body    string
}

func (s *site) bodies() *bodies {
	b := &bodies{}
	s.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			s.t.Error(err)
		}
		r.Body = io.NopCloser(strings.NewReader(string(data)))
		b.mu.Lock()
		defer b.mu.Unlock()
		b.list = append(b.list, sent{r, string(data)})
		return false
	})
	return b
}

// of gives those to one endpoint, in their order.
func (b *bodies) of(method, suffix string) (out []sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.list {
		if s.request.Method == method && strings.HasSuffix(s.request.URL.Path, suffix) {
			out = append(out, s)
		}
	}
	return out
}

// index is where in the order of requests the first to an endpoint by a user came, or -1.
func (b *bodies) index(method, part, user string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.IndexFunc(b.list, func(s sent) bool {
		return s.request.Method == method && strings.Contains(s.request.URL.Path, part) && s.request.URL.Query().Get("user_id") == user
	})
}

// loginSite is where devices are had by login and can be acted as.
func loginSite(t *testing.T) *site {
	s := newSite(t, bridgetest.Synapse, withoutLoginRefusal)
	s.restart(mode(appservice.DeviceLogin))
	return s
}

func TestB1_B2_B3_B4_B6_ALogin_IsOfARegisteredUserByItsIdentifierWithTheTokenInTheHeader(t *testing.T) {
	s := loginSite(t)
	b := s.bodies()
	s.mustSay("1")
	logins := b.of("POST", "/login")
	if len(logins) != 1 {
		t.Fatalf("%d logins", len(logins))
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(logins[0].body), &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "m.login.application_service", "identifier": map[string]any{"type": "m.id.user", "user": "irc_ann"},
		"device_id": s.known().DeviceID, "initial_device_display_name": "Trestle",
	}
	if fmt.Sprint(body) != fmt.Sprint(want) {
		t.Errorf("body %v, want %v", body, want)
	}
	r := logins[0].request
	if r.Header.Get("Authorization") != "Bearer as-secret" || r.URL.Query().Has("access_token") || r.URL.Query().Has("device_id") {
		t.Errorf("asked with %v, %s", r.Header, r.URL)
	}
	if registered, loggedIn := b.index("POST", "/register", string(ghost)), b.index("POST", "/login", string(ghost)); registered < 0 || registered > loggedIn {
		t.Errorf("registered as request %d, logged in as %d", registered, loggedIn)
	}
}

func TestB5_B14_C18_TheTokenOfALogin_IsNeitherStoredNorUsed(t *testing.T) {
	s := loginSite(t)
	s.mustSay("1")
	device := s.known().DeviceID
	for n := range 10 {
		s.restart(mode(appservice.DeviceLogin))
		s.mustSay(fmt.Sprint("again", n))
	}
	s.wantDevices(device)
	if n := s.hs.Logins(ghost); n != 1 {
		t.Errorf("%d logins of one device", n)
	}
	for _, r := range s.requests("PUT", "/send/") {
		if r.AppService != "irc" || string(r.Device) != device {
			t.Errorf("%+v", r)
		}
	}
}

// The answer to a login is lost, and a token with it that nobody can use or end. Its device is logged out by the next.
func TestB14_LostAnswersToLogins_LeaveOneTokenToADevice(t *testing.T) {
	s := loginSite(t)
	for range 3 {
		s.hs.Fault(bridgetest.Fault{Method: "POST", Path: regexp.MustCompile("/login$"), Drop: true, DropAfter: true})
		if err := s.say("1"); err == nil {
			t.Fatal("no error")
		}
		s.restart(mode(appservice.DeviceLogin))
	}
	s.mustSay("1")
	s.wantDevices(s.known().DeviceID)
	if n := s.hs.Logins(ghost); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestB7_B8_LoginOfNobodyOrOfSomebodyElse_IsRefusedAsEachHomeserverDoes(t *testing.T) {
	login := func(user string) string {
		return `{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"` + user + `"}}`
	}
	for kind, want := range map[bridgetest.Personality][4]string{ // no token, a wrong one, nobody, somebody else's
		bridgetest.Synapse:      {"401 M_MISSING_TOKEN", "401 M_UNKNOWN_TOKEN", "404 M_UNKNOWN", "403 M_FORBIDDEN"},
		bridgetest.SynapseOAuth: {"404 M_UNRECOGNIZED", "404 M_UNRECOGNIZED", "404 M_UNRECOGNIZED", "404 M_UNRECOGNIZED"},
		bridgetest.Dendrite:     {"403 M_MISSING_TOKEN", "401 M_UNKNOWN_TOKEN", "200 <nil>", "400 M_EXCLUSIVE"},
		bridgetest.Continuwuity: {"401 M_MISSING_TOKEN", "401 M_UNKNOWN_TOKEN", "400 M_INVALID_PARAM", "400 M_EXCLUSIVE"},
		bridgetest.Tuwunel:      {"401 M_MISSING_TOKEN", "401 M_UNKNOWN_TOKEN", "400 M_INVALID_PARAM", "400 M_EXCLUSIVE"},
	} {
		s := newSite(t, kind, withoutLoginRefusal)
		for n, token := range []string{"", "wrong", s.reg.ASToken, s.reg.ASToken} {
			user := "irc_nobody"
			if n == 3 {
				user = "alice"
			}
			status, answer := s.rawAs(token, "POST", "/_matrix/client/v3/login", login(user))
			if got := fmt.Sprint(status, " ", answer["errcode"]); got != want[n] {
				t.Errorf("%s: login of %s with token %q got %s, want %s", kind, user, token, got, want[n])
			}
		}
	}
}

func TestB10_TokenThatIsNotTaken_IsSaidToBeThatAndDecidesNothing(t *testing.T) {
	for _, answer := range []string{"401 M_MISSING_TOKEN", "401 M_UNKNOWN_TOKEN", "403 M_MISSING_TOKEN"} {
		status, code, _ := strings.Cut(answer, " ")
		s := loginSite(t)
		s.hs.Fault(bridgetest.Fault{Method: "POST", Path: regexp.MustCompile("/login$"), Status: map[string]int{"401": 401, "403": 403}[status], ErrCode: code})
		if err := s.say("1"); err == nil || !strings.Contains(err.Error(), "as_token") || appservice.IsPermanent(err) {
			t.Errorf("after %s: %v", answer, err)
		}
		s.mustSay("1")
	}
}

func TestB8_B18_GhostThatTheHomeserverCountsToNobody_IsAnErrorForGoodThatNamesTheNamespaces(t *testing.T) {
	for _, status := range []int{400, 403} {
		s := loginSite(t)
		s.hs.Fault(bridgetest.Fault{Method: "POST", Path: regexp.MustCompile("/login$"), Status: status, ErrCode: "M_EXCLUSIVE", Times: -1})
		if err := s.say("1"); !appservice.IsPermanent(err) || !strings.Contains(err.Error(), "namespaces") {
			t.Errorf("%d: %v", status, err)
		}
		if n := len(s.requests("POST", "/login$")); n != 1 {
			t.Errorf("asked %d times", n)
		}
	}
	s := loginSite(t)
	before := len(s.requests("POST", "/(login|register)$"))
	if _, err := s.as.Ghost("@alice:hs.test").EnsureDevice(t.Context()); !appservice.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if n := len(s.requests("POST", "/(login|register)$")) - before; n != 0 {
		t.Errorf("%d requests were made for a user outside of the namespace", n)
	}
}

func TestB9_LoginThatIsForbidden_IsTriedOnceMoreAndThenNoLonger(t *testing.T) {
	s := loginSite(t)
	s.hs.Fault(bridgetest.Fault{Method: "POST", Path: regexp.MustCompile("/login$"), Status: 403, ErrCode: "M_FORBIDDEN", Times: -1})
	for range 4 {
		if err := s.say("1"); !errors.Is(err, appservice.ErrNoDevices) || !strings.Contains(err.Error(), "M_FORBIDDEN") {
			t.Errorf("%v", err)
		}
	}
	if n := len(s.requests("POST", "/login$")); n != 1 {
		t.Errorf("asked %d times, although the user is registered", n)
	}
}

func TestB12_TheTypeOfLogin_IsTheStableOneElseTheOldElseNone(t *testing.T) {
	const stable, old = "m.login.application_service", "uk.half-shot.msc2778.login.application_service"
	for _, c := range []struct{ flows, want string }{
		{`{"flows":[{"type":"m.login.password"},{"type":"` + old + `"},{"type":"` + stable + `"}]}`, stable},
		{`{"flows":[{"type":"m.login.password"},{"type":"` + old + `"}]}`, old},
		{`{"flows":[{"type":"m.login.password"}]}`, ""},
		{`{"flows":[]}`, ""},
		{`{}`, ""},
	} {
		s := loginSite(t)
		b := s.bodies()
		s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/login") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			if r.Method == "GET" {
				_, _ = w.Write([]byte(c.flows))
				return true
			}
			var req struct {
				Device string `json:"device_id"`
			}
			_ = json.NewDecoder(r.Body).Decode(&req)
			s.raw("PUT", "/_matrix/client/v3/devices/"+req.Device+"?user_id="+string(ghost), "{}")
			_ = json.NewEncoder(w).Encode(map[string]string{"user_id": string(ghost), "device_id": req.Device, "access_token": "x"})
			return true
		})
		err := s.say("1")
		logins := b.of("POST", "/login")
		if c.want == "" {
			if !errors.Is(err, appservice.ErrNoDevices) || len(logins) != 0 {
				t.Errorf("%s: %v, %d logins", c.flows, err, len(logins))
			}
			continue
		}
		if err != nil || len(logins) != 1 || !strings.Contains(logins[0].body, `"type":"`+c.want+`"`) {
			t.Errorf("%s: %v, %+v", c.flows, err, logins)
		}
	}
}

func TestB13_DeviceWhoseKeysAreLost_IsReplacedAndOneThatIsIntactIsKept(t *testing.T) {
	s := loginSite(t)
	s.mustSay("1")
	first := s.known().DeviceID
	s.restart(mode(appservice.DeviceLogin))
	s.mustSay("2")
	s.wantDevices(first)
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil { // what the loss of its keys leads to
		t.Fatal(err)
	}
	s.mustSay("3")
	if second := s.known().DeviceID; second == first {
		t.Error("the new device has the ID of the one whose keys are lost")
	}
	s.wantDevices(s.known().DeviceID)
	if n := s.hs.Logins(ghost); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestB17_TheBot_IsRegisteredBeforeItHasADevice(t *testing.T) {
	s := loginSite(t)
	b := s.bodies()
	device, err := s.as.Bot().EnsureDevice(t.Context())
	if err != nil || device == "" {
		t.Fatal(device, err)
	}
	if registered, loggedIn := b.index("POST", "/register", "@ircbot:hs.test"), b.index("POST", "/login", "@ircbot:hs.test"); registered < 0 || registered > loggedIn {
		t.Errorf("registered as request %d, logged in as %d", registered, loggedIn)
	}
}
