package truth

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Target is a homeserver that is held to the cases.
type Target struct {
	Personality bridgetest.Personality
	URL         string // of the client-server API, without a slash at its end
	Domain      string
	// Tokens are the as_tokens of the appservices of [Registrations], by ID, and as "alice" that of a person.
	Tokens map[string]string
	// Limits tells that the rates are those of bridgetest.TightLimits. Cases that need them run only then, and the others only
	// without.
	Limits bool
	// Moderate does what an administrator can do; nil leaves out the cases that need it.
	Moderate func(ctx context.Context, user id.UserID, what bridgetest.Moderation) error
}

// Registrations are the appservices that the cases are written for; none is asked anything. A file for a real homeserver is
// their YAML.
func Registrations(domain string) []*bridgetest.Registration {
	var out []*bridgetest.Registration
	for _, service := range []string{"service", "nologin", "limited"} {
		out = append(out, &bridgetest.Registration{
			ID: service, ASToken: "as-token-" + service, HSToken: "hs-token-" + service, SenderLocalpart: service + "bot",
			RateLimited: service == "limited", NoLogin: service == "nologin", DeviceManagement: service == "nologin",
			Namespaces: bridgetest.Namespaces{
				Users:   []bridgetest.Namespace{{Regex: "@" + service + "_.*:" + regexp.QuoteMeta(domain), Exclusive: true}},
				Aliases: []bridgetest.Namespace{{Regex: "#" + service + "_.*:" + regexp.QuoteMeta(domain), Exclusive: true}},
			},
		})
	}
	return out
}

// Run runs every case that the target can show, each in a subtest. It may be run again on the same homeserver.
func Run(t *testing.T, target Target) {
	t.Helper()
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if !c.on(target.Personality) || !target.can(&c) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			r := &runner{Target: target, t: t, vars: map[string]string{"domain": target.Domain, "run": randomHex()}}
			r.client = &http.Client{
				Transport:     &http.Transport{DisableKeepAlives: true},
				Timeout:       time.Minute,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}
			for i := range c.Steps {
				r.step(i+1, &c.Steps[i])
			}
		})
	}
}

func (target *Target) can(c *Case) bool {
	limits := false
	for _, need := range c.Needs {
		limits = limits || need == "limits"
		if need == "moderation" && target.Moderate == nil {
			return false
		}
	}
	return limits == target.Limits
}

type runner struct {
	Target
	t      *testing.T
	client *http.Client
	vars   map[string]string
}

func randomHex() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var variable = regexp.MustCompile(`\{(@?)([a-z0-9_]+)\}`)

// expand puts in what is in braces: {@g1} is the user ID of a ghost, {g1} its localpart, {domain} the server, others what was
// kept. A ghost's localpart begins with its appservice: g1 is the service's, nologin_g1 and limited_g1 the others'.
func (r *runner) expand(s string, escape func(string) string) string {
	return variable.ReplaceAllStringFunc(s, func(match string) string {
		parts := variable.FindStringSubmatch(match)
		value, kept := r.vars[parts[2]]
		if !kept {
			service, ghost, found := strings.Cut(parts[2], "_")
			if !found {
				service, ghost = "service", parts[2]
			}
			value = service + "_" + r.vars["run"] + "_" + ghost
		}
		if parts[1] == "@" {
			value = "@" + value + ":" + r.Domain
		}
		if parts[2] == "media" {
			return value
		}
		return escape(value)
	})
}

func plain(s string) string { return s }

// expandAll does so in every string of a value.
func (r *runner) expandAll(v any) any {
	switch v := v.(type) {
	case string:
		return r.expand(v, plain)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = r.expandAll(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[r.expand(k, plain)] = r.expandAll(e)
		}
		return out
	}
	return v
}

func (r *runner) step(n int, s *Step) {
	r.t.Helper()
	switch {
	case s.Register != "":
		service, _, found := strings.Cut(s.Register, "_")
		if !found {
			service = "service"
		}
		body := map[string]any{"type": "m.login.application_service", "username": r.expand("{"+s.Register+"}", plain), "inhibit_login": true}
		status, _, data := r.request(&Step{Do: "POST /_matrix/client/v3/register", As: service, Body: body})
		if status != http.StatusOK {
			r.t.Fatalf("step %d: registering %s: %d %s", n, s.Register, status, data)
		}
		return
	case s.Moderate != "":
		what, known := map[string]bridgetest.Moderation{
			"suspended": bridgetest.Suspended, "locked": bridgetest.Locked, "deactivated": bridgetest.Deactivated, "normal": bridgetest.Unmoderated,
		}[s.To]
		if !known {
			r.t.Fatalf("step %d: there is no state %q", n, s.To)
		}
		if err := r.Moderate(r.t.Context(), id.UserID(r.expand("{@"+s.Moderate+"}", plain)), what); err != nil {
			r.t.Fatalf("step %d: %v", n, err)
		}
		return
	}
	want := s.expected(r.Personality)
	if want.Want == "left out" {
		return
	}
	wantStatus, wantCode, err := want.split()
	if err != nil {
		r.t.Fatalf("step %d: %v", n, err)
	}
	status, header, data := r.request(s)
	where := fmt.Sprintf("step %d: %s", n, s.Do)
	var body map[string]any
	if wantCode != "text" && len(data) > 0 {
		if err := json.Unmarshal(data, &body); err != nil {
			r.t.Fatalf("%s: %d and no JSON: %.200s", where, status, data)
		}
	}
	code, _ := body["errcode"].(string)
	if wantCode == "text" {
		code = "text"
	}
	if status != wantStatus || code != wantCode {
		r.t.Fatalf("%s: %d %s, want %s; the answer is %.300s", where, status, code, want.Want, data)
	}
	for field, expected := range want.Has {
		if got, there := lookUp(body, field); !there || !matches(got, r.expandAll(expected)) {
			r.t.Errorf("%s: %s is %v, want %v; the answer is %.300s", where, field, got, r.expandAll(expected), data)
		}
	}
	for _, field := range want.Lacks {
		if got, there := lookUp(body, field); there {
			r.t.Errorf("%s: %s is %v and should not be there", where, field, got)
		}
	}
	for name, expected := range want.Header {
		if got := header.Get(name); !matches(got, expected) {
			r.t.Errorf("%s: header %s is %q, want %q", where, name, got, expected)
		}
	}
	for name, field := range s.Keep {
		if value, _ := lookUp(body, field); value != nil {
			r.vars[name] = text(value)
			if media, found := strings.CutPrefix(r.vars[name], "mxc://"); found {
				r.vars["media"] = media // server and ID, as in a path
			}
		}
	}
}

func (r *runner) request(s *Step) (int, http.Header, []byte) {
	r.t.Helper()
	method, path, _ := strings.Cut(s.Do, " ")
	var reader io.Reader
	switch {
	case s.Raw != "":
		reader = strings.NewReader(s.Raw)
	case s.Body != nil:
		data, err := json.Marshal(r.expandAll(s.Body))
		if err != nil {
			r.t.Fatal(err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.URL+r.expand(path, url.PathEscape), reader)
	if err != nil {
		r.t.Fatal(err)
	}
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch s.As {
	case "none":
	case "wrong":
		req.Header.Set("Authorization", "Bearer nobody-has-this-token")
	default:
		token := r.Tokens[s.As]
		if s.As == "" {
			token = r.Tokens["service"]
		}
		if kept := r.vars[s.As]; token == "" {
			token = kept
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range s.Headers {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s: %v", s.Do, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s: reading the answer: %v", s.Do, err)
	}
	return resp.StatusCode, resp.Header, data
}
