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
	// SmallUploads tells that uploads of more than 64 KiB are too large. Cases that need that run only then.
	SmallUploads bool
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
	forEach(t, &target, func(ctx context.Context, c *Case) []string {
		r := newRunner(ctx, target)
		for i := range c.Steps {
			if _, goOn := r.step(i+1, &c.Steps[i]); !goOn {
				break
			}
		}
		return r.problems
	})
}

// forEach runs what gives a case's problems, for each case that the target can show.
func forEach(t *testing.T, target *Target, run func(context.Context, *Case) []string) {
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
			for _, problem := range run(t.Context(), &c) {
				t.Error(problem)
			}
		})
	}
}

func (target *Target) can(c *Case) bool {
	limits := false
	for _, need := range c.Needs {
		limits = limits || need == "limits"
		if need == "moderation" && target.Moderate == nil || need == "small uploads" && !target.SmallUploads {
			return false
		}
	}
	return limits == target.Limits
}

// runner takes one target through one case.
type runner struct {
	Target
	ctx      context.Context
	client   *http.Client
	vars     map[string]string
	problems []string
}

func newRunner(ctx context.Context, target Target) *runner {
	return &runner{
		Target: target, ctx: ctx, vars: map[string]string{"domain": target.Domain, "run": randomHex(), "long": strings.Repeat("x", 248), "big": strings.Repeat("x", 70_000), "huge": strings.Repeat("x", 13_200_000),
			"keysonly": `{"room":{"rooms":[]},"presence":{"types":[]},"account_data":{"types":[]}}`},
		client: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true},
			Timeout:       time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (r *runner) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
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

// step does one step. Without an answer there is no exchange; goOn is false when later steps make no sense any more.
func (r *runner) step(n int, s *Step) (x *exchange, goOn bool) {
	where := fmt.Sprintf("step %d: ", n)
	switch {
	case s.Register != "":
		if err := r.register(s.Register); err != nil {
			r.problem("%sregistering %s: %v", where, s.Register, err)
			return nil, false
		}
		return nil, true
	case s.Moderate != "":
		if err := r.moderate(s.Moderate, s.To); err != nil {
			r.problem("%s%s is to be %s: %v", where, s.Moderate, s.To, err)
			return nil, false
		}
		return nil, true
	}
	want := s.expected(r.Personality)
	if want.Want == leftOut {
		return nil, true
	}
	where += s.Do
	a, err := r.request(s)
	if want.Want == noAnswer {
		if err == nil {
			r.problem("%s: %d, want no answer", where, a.status)
		}
		return nil, true
	}
	if err != nil {
		r.problem("%s: %v", where, err)
		return nil, false
	}
	x = r.normal(s, a)
	if !r.check(where, &want, a) {
		return x, len(s.Keep) == 0
	}
	for name, field := range s.Keep {
		if value, _ := lookUp(a.object, field); value != nil {
			r.vars[name] = text(value)
			if media, found := strings.CutPrefix(r.vars[name], "mxc://"); found {
				r.vars["media"] = media // server and ID, as in a path
			}
		}
	}
	return x, true
}

// check holds an answer to what is expected; false when it is another answer altogether.
func (r *runner) check(where string, want *Answer, a *answer) bool {
	wantStatus, wantCode, err := want.split()
	if err != nil {
		r.problem("%s: %v", where, err)
		return false
	}
	code, _ := a.object["errcode"].(string)
	switch {
	case wantCode == "text":
		code = "text"
	case len(a.body) > 0 && !json.Valid(a.body):
		r.problem("%s: %d and no JSON: %.200s", where, a.status, a.body)
		return false
	}
	if a.status != wantStatus || code != wantCode {
		r.problem("%s: %d %s, want %s; the answer is %.300s", where, a.status, code, want.Want, a.body)
		return false
	}
	for field, expected := range want.Has {
		field = r.expand(field, plain)
		if got, there := lookUp(a.object, field); !there || !matches(got, r.expandAll(expected)) {
			r.problem("%s: %s is %v, want %v; the answer is %.300s", where, field, got, r.expandAll(expected), a.body)
		}
	}
	for _, field := range want.Lacks {
		if got, there := lookUp(a.object, field); there {
			r.problem("%s: %s is %v and should not be there", where, field, got)
		}
	}
	for name, expected := range want.Header {
		if got := a.header.Get(name); !matches(got, expected) {
			r.problem("%s: header %s is %q, want %q", where, name, got, expected)
		}
	}
	return true
}

// register registers a ghost of the service that its name begins with.
func (r *runner) register(ghost string) error {
	service, _, found := strings.Cut(ghost, "_")
	if !found {
		service = "service"
	}
	body := map[string]any{"type": "m.login.application_service", "username": r.expand("{"+ghost+"}", plain), "inhibit_login": true}
	a, err := r.request(&Step{Do: "POST /_matrix/client/v3/register", As: service, Body: body})
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%d %s", a.status, a.body)
	}
	return err
}

func (r *runner) moderate(ghost, to string) error {
	what, known := map[string]bridgetest.Moderation{
		"suspended": bridgetest.Suspended, "locked": bridgetest.Locked, "deactivated": bridgetest.Deactivated, "normal": bridgetest.Unmoderated,
	}[to]
	if !known {
		return fmt.Errorf("there is no state %q", to)
	}
	return r.Moderate(r.ctx, id.UserID(r.expand("{@"+ghost+"}", plain)), what)
}

// answer is an answer as it came.
type answer struct {
	status int
	header http.Header
	body   []byte
	object map[string]any // nil when it is no JSON object
}

func (r *runner) request(s *Step) (*answer, error) {
	method, path, _ := strings.Cut(s.Do, " ")
	var reader io.Reader
	switch {
	case s.Raw != "":
		reader = strings.NewReader(r.expand(s.Raw, plain))
	case s.Body != nil:
		data, err := json.Marshal(r.expandAll(s.Body))
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(r.ctx, method, r.URL+r.expand(path, url.PathEscape), reader)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: data}
	_ = json.Unmarshal(data, &a.object) // what is no JSON is told from it by having none
	return a, nil
}
