package bridgetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// watched is a test that is only watched: its errors and what it does at its end are kept.
type watched struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (w *watched) Helper()           {}
func (w *watched) Cleanup(fn func()) { w.cleanups = append(w.cleanups, fn) }
func (w *watched) Errorf(format string, args ...any) {
	w.errors = append(w.errors, fmt.Sprintf(format, args...))
}
func (w *watched) end() {
	for _, fn := range w.cleanups {
		fn()
	}
}

// leakTest makes one request in a test of its own and gives the errors of that test and the answer.
func leakTest(t *testing.T, method, path, auth string, prepare func(*Homeserver)) (failures []string, status int, answer string) {
	t.Helper()
	w := &watched{TB: t}
	hs := NewHomeserver(w)
	if err := hs.AddRegistration(&Registration{ID: "demo", ASToken: "as-token", HSToken: "hs-token", SenderLocalpart: "demobot"}); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(hs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, hs.URL()+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Do(req); err == nil {
		data, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		status, answer = resp.StatusCode, string(data)
	}
	w.end()
	return w.errors, status, answer
}

// routePath is a path of a route; its variables are filled with something.
func routePath(rt route) string {
	parts := make([]string, len(rt.parts))
	for i, p := range rt.parts {
		if parts[i] = p; strings.HasPrefix(p, "{") {
			parts[i] = "x"
		}
	}
	return "/" + strings.Join(parts, "/")
}

func TestF1_TokenInTheQueryOfAnyEndpoint_FailsTheTest(t *testing.T) {
	hs, err := StartHomeserver(Options{})
	if err != nil {
		t.Fatal(err)
	}
	routes := hs.routes
	_ = hs.Close()
	for _, rt := range routes {
		if rt.mode == free { // these wait for something; they take their token from the same place
			continue
		}
		if failures, _, _ := leakTest(t, rt.method, routePath(rt)+"?access_token=anything", "", nil); len(failures) != 1 {
			t.Errorf("%s %s: the test's failures are %q", rt.method, routePath(rt), failures)
		}
	}
}

func TestF1_TokenInAnyURL_FailsTheTestWhateverBecameOfTheRequest(t *testing.T) {
	const path = "/_matrix/client/v3/account/whoami"
	for name, c := range map[string]struct {
		method, path string
		prepare      func(*Homeserver)
	}{
		"a path that is not known":      {"GET", "/nowhere?access_token=x", nil},
		"a method that is not known":    {"PATCH", path + "?access_token=x", nil},
		"another spelling":              {"GET", path + "?Access_Token=x", nil},
		"without a value":               {"GET", path + "?access_token", nil},
		"the media of an upload":        {"POST", "/_matrix/media/v3/upload?access_token=x", nil},
		"a media download":              {"GET", "/_matrix/client/v1/media/download/hs.test/x?access_token=x", nil},
		"an as_token by another name":   {"GET", path + "?token=as-token", nil},
		"an hs_token":                   {"GET", path + "?user_id=hs-token", nil},
		"after a semicolon":             {"GET", path + "?a=b;access_token=x", nil},
		"in a query that is broken":     {"GET", path + "?a=%zz&access_token=x", nil},
		"an as_token within a value":    {"GET", path + "?next=http%3A%2F%2Fx%2F%3Ft%3Das-token", nil},
		"an as_token as a name":         {"GET", path + "?as-token", nil},
		"a user's token within a value": {"GET", path + "?next=x-syt_abcdefghijklmnopqrstuvwx", nil},
		"a refresh token":               {"GET", path + "?r=syr_abcdefghijklmnopqrstuvwx", nil},
		"an as_token in the path":       {"GET", "/_matrix/client/v3/profile/as-token", nil},
		"a connection that was cut off": {"GET", path + "?access_token=x", func(hs *Homeserver) { hs.Fault(Fault{Drop: true, Times: -1}) }},
		"an answer that was made up": {"GET", path + "?access_token=x", func(hs *Homeserver) {
			hs.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(200); return true })
		}},
	} {
		failures, _, _ := leakTest(t, c.method, c.path, "", c.prepare)
		if len(failures) == 0 {
			t.Errorf("%s did not fail the test", name)
		}
		for _, f := range failures {
			if strings.Contains(f, "as-token") || strings.Contains(f, "hs-token") {
				t.Errorf("%s: the failure shows the token: %s", name, f)
			}
		}
	}
}

func TestF1_TokenInTheHeader_FailsNothing(t *testing.T) {
	failures, status, answer := leakTest(t, "GET", "/_matrix/client/v3/account/whoami?user_id=@demobot:hs.test", "Bearer as-token", nil)
	if len(failures) != 0 || status != 200 {
		t.Errorf("%d %s, failures %q", status, answer, failures)
	}
}

func TestF1_LeakOfLongAgo_StillFailsTheTest(t *testing.T) {
	failures, _, _ := leakTest(t, "GET", "/_matrix/client/versions", "", func(hs *Homeserver) {
		hs.mu.Lock()
		defer hs.mu.Unlock()
		req, _ := http.NewRequest("GET", "http://x/old?access_token=x", nil)
		hs.noteLeak(req)
		for range keptRequests + 1 { // more than the log of requests keeps
			hs.log.add(Request{})
		}
	})
	if len(failures) != 1 {
		t.Errorf("the failures are %q", failures)
	}
}

func TestF4_TokenInHeaderAndQuery_IsRefused(t *testing.T) {
	for _, c := range [][2]string{
		{"GET", "/_matrix/client/v3/account/whoami"}, {"POST", "/_matrix/client/v3/register"}, {"POST", "/_matrix/client/v3/createRoom"},
		{"GET", "/_matrix/client/v3/sync"}, {"POST", "/_matrix/media/v3/upload"},
	} {
		failures, status, answer := leakTest(t, c[0], c[1]+"?access_token=as-token", "Bearer as-token", nil)
		if status != 401 || !strings.Contains(answer, "M_MISSING_TOKEN") || !strings.Contains(answer, "Mixing Authorization headers") || len(failures) == 0 {
			t.Errorf("%s %s: %d %s, failures %q", c[0], c[1], status, answer, failures)
		}
	}
}
