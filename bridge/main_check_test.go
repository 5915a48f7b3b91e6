package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/ports"
)

// tinyHomeserver answers what check asks. Each field changes one answer.
type tinyHomeserver struct {
	registration *appservice.Registration
	domain       string // trestle.test unless set
	token        string // the token it knows; the registration's unless set
	hsToken      string // the token it shows; the registration's unless set
	noPing       bool
	versions     string // the whole answer to /versions
	redirect     bool
	saw          []string // status of the requests it made to the bridge
}

func (h *tinyHomeserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errcode":%q,"error":"no"}`, code)
	}
	known := h.registration.ASToken
	if h.token != "" {
		known = h.token
	}
	switch {
	case h.redirect:
		http.Redirect(w, r, "https://elsewhere.trestle.test"+r.URL.Path, http.StatusMovedPermanently)
	case r.URL.Path == "/_matrix/client/versions" && h.versions != "":
		_, _ = io.WriteString(w, h.versions)
	case r.URL.Path == "/_matrix/client/versions":
		_, _ = io.WriteString(w, `{"versions":["v1.1","v1.12"]}`)
	case r.Header.Get("Authorization") != "Bearer "+known:
		refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	case r.URL.Path == "/_matrix/client/v3/account/whoami":
		domain := h.domain
		if domain == "" {
			domain = "trestle.test"
		}
		fmt.Fprintf(w, `{"user_id":"@%s:%s"}`, h.registration.SenderLocalpart, domain)
	case r.URL.Path == "/_matrix/client/v1/appservice/"+h.registration.ID+"/ping" && !h.noPing:
		h.pingBack(w, r, refuse)
	default:
		refuse(http.StatusNotFound, "M_UNRECOGNIZED")
	}
}

// pingBack does what a homeserver does on a ping, and sends a transaction after it.
func (h *tinyHomeserver) pingBack(w http.ResponseWriter, r *http.Request, refuse func(int, string)) {
	var ask map[string]string
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask["transaction_id"] == "" {
		refuse(http.StatusBadRequest, "M_BAD_JSON")
		return
	}
	token := h.registration.HSToken
	if h.hsToken != "" {
		token = h.hsToken
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	send := func(method, path string) (int, error) {
		request, err := http.NewRequestWithContext(r.Context(), method, h.registration.URL+path, strings.NewReader(`{"events":[{}]}`))
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		h.saw = append(h.saw, fmt.Sprintf("%s %d", path, response.StatusCode))
		return response.StatusCode, nil
	}
	status, err := send(http.MethodPost, "/_matrix/app/v1/ping")
	switch {
	case err != nil:
		refuse(http.StatusBadGateway, "M_CONNECTION_FAILED")
	case status != http.StatusOK:
		refuse(http.StatusBadGateway, "M_BAD_STATUS")
	default:
		_, _ = send(http.MethodPut, "/_matrix/app/v1/transactions/1")
		_, _ = io.WriteString(w, `{"duration_ms":7}`)
	}
}

// checked is a bridge's directory beside a tiny homeserver.
type checked struct {
	config string
	env    []string
	hs     *tinyHomeserver
}

func newChecked(t *testing.T, more string) *checked {
	t.Helper()
	hs := &tinyHomeserver{}
	server := httptest.NewServer(hs)
	t.Cleanup(server.Close)
	listen, release, err := ports.Reserve() // check listens there next
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	c := &checked{config: writeConfig(t, more), hs: hs, env: []string{
		"TRESTLE_HOMESERVER_ADDRESS=" + server.URL, "TRESTLE_APPSERVICE_LISTEN=" + listen,
	}}
	invoke(&settledNetwork{}, c.env, "registration", "-config", c.config).want(t, exitOK, "", "")
	if hs.registration, err = appservice.LoadRegistration(filepath.Join(filepath.Dir(c.config), "registration.yaml")); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *checked) check(t *testing.T, env ...string) called {
	t.Helper()
	got := invoke(&settledNetwork{}, append(env, c.env...), "check", "-config", c.config)
	for _, secret := range []string{c.hs.registration.ASToken, c.hs.registration.HSToken, "hunter2"} {
		if strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("a secret is shown:\n%s", got.stdout)
		}
	}
	return got
}

func TestCheck_MediaLinks_SaysWhoAnswersThem(t *testing.T) {
	c := newChecked(t, "media: {public_url: https://media.trestle.test}\n")
	c.check(t).want(t, exitOK, "links begin with https://media.trestle.test/m/; media.listen is empty, so the subcommand proxy must answer them", "")
	c.check(t).want(t, exitOK, "because media.listen is empty\n                    → write media.listen: 127.0.0.1:29401, unless", "")
	newChecked(t, "").check(t).want(t, exitOK, "there are no media links, because media.public_url is empty", "")
}

// A transaction that comes while the bridge is only being checked must stay with the homeserver.
func TestCheck_TransactionDuringPing_IsRefused(t *testing.T) {
	c := newChecked(t, "")
	c.check(t).want(t, exitOK, "reached this check", "")
	if got := strings.Join(c.hs.saw, ", "); got != "/_matrix/app/v1/ping 200, /_matrix/app/v1/transactions/1 503" {
		t.Errorf("the homeserver saw %s", got)
	}
}

func TestCheck_WhatIsWrong_IsNamedWithItsMend(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*checked)
		want   string
	}{
		"unknown token":  {func(c *checked) { c.hs.token = "another" }, "FAIL  token         the homeserver does not know the as_token (status 401 M_UNKNOWN_TOKEN: no)"},
		"another domain": {func(c *checked) { c.hs.domain = "other.test" }, "write homeserver.domain: other.test"},
		"another bot":    {func(c *checked) { r := *c.hs.registration; r.SenderLocalpart = "old"; c.hs.registration = &r }, "takes the bridge for @old:trestle.test, not for @tinbot:trestle.test"},
		"another id":     {func(c *checked) { r := *c.hs.registration; r.ID = "old"; c.hs.registration = &r }, "FAIL  ping"},
		"old hs_token":   {func(c *checked) { c.hs.hsToken = "old" }, "FAIL  ping          the homeserver shows another hs_token than that of "},
		"unreachable":    {func(c *checked) { r := *c.hs.registration; r.URL = "http://127.0.0.1:1"; c.hs.registration = &r }, "(M_CONNECTION_FAILED)\n                    → write in appservice.address"},
		"no ping":        {func(c *checked) { c.hs.noPing = true }, "FAIL  ping          the homeserver has no ping, and did not ask at "},
		"redirect":       {func(c *checked) { c.hs.redirect = true }, "leads elsewhere (status 301)"},
		"not Matrix":     {func(c *checked) { c.hs.versions = "<html>" }, "the answer is not from a Matrix homeserver"},
		"no versions":    {func(c *checked) { c.hs.versions = "{}" }, "FAIL  homeserver"},
		"nobody there":   {func(c *checked) { c.env[0] = "TRESTLE_HOMESERVER_ADDRESS=http://127.0.0.1:1" }, "connection refused\n                    → look whether it runs"},
		"no directory":   {func(c *checked) { c.env = append(c.env, "TRESTLE_DATABASE=sqlite:nowhere/x.db") }, "FAIL  database"},
		"strange listen": {func(c *checked) {
			url := c.hs.registration.URL
			c.env = append(c.env[:1], "TRESTLE_APPSERVICE_LISTEN=192.0.2.1:29400", "TRESTLE_APPSERVICE_ADDRESS="+url)
		}, "write an address of this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecked(t, "")
			tc.change(c)
			status := exitFailed
			if strings.HasPrefix(tc.want, "WARN") {
				status = exitOK
			}
			c.check(t).want(t, status, tc.want, "")
		})
	}
}

func TestCheck_BridgeIsRunning_ItAnswersThePing(t *testing.T) {
	c := newChecked(t, "")
	listener, err := net.Listen("tcp", strings.TrimPrefix(c.hs.registration.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	running := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	running.Listener.Close()
	running.Listener = listener
	running.Start()
	defer running.Close()
	c.check(t).want(t, exitOK, "the homeserver reached the running bridge at ", "")
}

func TestCheck_MistakesInBothFiles_AreAllInOneRun(t *testing.T) {
	c := newChecked(t, "")
	file := filepath.Join(filepath.Dir(c.config), "registration.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.NewReplacer("as_token:", "as_tokn:", "rate_limited: false", "rate_limited: perhaps").Replace(string(content))
	if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	c.check(t).want(t, exitWrong, "OK    configuration", "")
	got := c.check(t, "TRESTLE_LOG_LEVEL=loud", "TRESTLE_MEDIA_LIFETIME=1")
	for _, mistake := range []string{"log.level: ", "media.lifetime: ", "as_token: ", "as_tokn: ", "rate_limited: "} {
		got.want(t, exitWrong, mistake, "")
	}
	if n := strings.Count(got.stdout, "FAIL"); n != 5 {
		t.Errorf("got %d mistakes:\n%s", n, got.stdout)
	}
}

func TestCheck_WrongConfiguration_RegistrationIsStillCompared(t *testing.T) {
	c := newChecked(t, "")
	got := c.check(t, "TRESTLE_LOG_LEVEL=loud", "TRESTLE_APPSERVICE_BOT=UPPER", "TRESTLE_APPSERVICE_ID=other")
	got.want(t, exitWrong, `id: is "tin", and the configuration has "other"`, "")
	if n := strings.Count(got.stdout, "FAIL"); n != 3 || strings.Contains(got.stdout, "sender_localpart") {
		t.Errorf("got %d mistakes:\n%s", n, got.stdout)
	}
	c.check(t, "TRESTLE_APPSERVICE_REGISTRATION=").want(t, exitWrong, "WARN  registration  not looked at", "")
}

func TestCheck_Database_OpensOrSaysWhy(t *testing.T) {
	c := newChecked(t, "")
	path := filepath.Join(filepath.Dir(c.config), "trestle.db")
	if err := os.WriteFile(path, []byte("this is not a database, and long enough to be taken for one by nobody"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.check(t).want(t, exitFailed, "FAIL  database", "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.check(t).want(t, exitOK, "OK    database      "+path+" opens", "")
	// Nothing listens there, and the password is nowhere to be seen.
	c.check(t, "TRESTLE_DATABASE=postgres://tin:hunter2@127.0.0.1:1/tin?sslmode=disable").want(t, exitFailed, "FAIL  database", "")
}

func TestCheck_FilesThatEverybodyCanRead_AreNoted(t *testing.T) {
	c := newChecked(t, "")
	if err := os.Chmod(c.config, 0o644); err != nil {
		t.Fatal(err)
	}
	c.check(t).want(t, exitOK, "WARN  secrets       "+c.config+" can be read by everybody", "")
}

func TestCheck_DatabaseError_LosesItsPassword(t *testing.T) {
	const uri = "postgres://tin:hunter2%20x@db.trestle.test/tin"
	for _, text := range []string{
		"cannot open " + uri, "password \"hunter2 x\" is wrong", "parse postgres://u:hunter2@other/: no", "user tin, password hunter2+x",
	} {
		if got := withoutPassword(text, uri); strings.Contains(got, "hunter2") {
			t.Errorf("got %s", got)
		}
	}
}

type checkedNetwork struct {
	Network
	err error
}

func (n checkedNetwork) Info() Info                            { return Info{Name: "Tin Can"} }
func (n checkedNetwork) CheckConnection(context.Context) error { return n.err }

func TestCheck_NetworkThatCanBeTried_IsTried(t *testing.T) {
	for _, c := range []struct {
		err    error
		want   string
		failed bool
	}{
		{nil, "OK    network       Tin Can lets the bridge in\n", false},
		{errors.New("the string is cut: knot it"), "FAIL  network       Tin Can: the string is cut: knot it\n", true},
	} {
		var out strings.Builder
		f := &findings{out: &out}
		checkNetwork(t.Context(), f, checkedNetwork{err: c.err})
		if out.String() != c.want || f.failed != c.failed {
			t.Errorf("got %q, failed %v", out.String(), f.failed)
		}
	}
}
