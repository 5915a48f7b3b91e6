package truth_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/bridgetest/truth"
)

// mutants are homeservers that are wrong in one answer each, and what the comparison has to say about them.
var mutants = map[string]struct {
	change func(*http.Response, []byte) []byte
	says   string
}{
	"none":             {func(_ *http.Response, body []byte) []byte { return body }, ""},
	"another errcode":  {replacing("M_USER_IN_USE", "M_IN_USE"), `/errcode is "M_USER_IN_USE", really "M_IN_USE"`},
	"another field":    {replacing(`"is_guest"`, `"guest"`), "/is_guest is not there really"},
	"one more field":   {replacing(`"is_guest"`, `"new":1,"is_guest"`), "/new is missing"},
	"another value":    {replacing(`"enabled":true`, `"enabled":1`), "/capabilities/m.set_avatar_url/enabled is true, really 1"},
	"another type":     {replacing(`"is_guest":false`, `"is_guest":"no"`), `/is_guest is false, really "no"`},
	"an ID of no form": {replacing(`"room_id":"!`, `"room_id":"?`), `/room_id is "\u003croom`},
	"another status": {func(resp *http.Response, body []byte) []byte {
		if resp.StatusCode == http.StatusCreated {
			resp.StatusCode = http.StatusOK
		}
		return body
	}, "differing: status"},
	"a header less": {func(resp *http.Response, body []byte) []byte {
		resp.Header.Del("Content-Disposition")
		return body
	}, `header Content-Disposition is "inline`},
}

func replacing(old, with string) func(*http.Response, []byte) []byte {
	return func(_ *http.Response, body []byte) []byte { return bytes.ReplaceAll(body, []byte(old), []byte(with)) }
}

// A comparison that fails fails its test, so each mutant has a process of its own, in which this test compares.
func TestCompare_WithAHomeserverThatIsWrong_FailsAndNamesIt(t *testing.T) {
	if name := os.Getenv("TRUTH_MUTANT"); name != "" {
		model, real := target(t, bridgetest.Synapse, false), target(t, bridgetest.Synapse, false)
		at, err := url.Parse(real.URL)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DisableKeepAlives: true}
		proxy := &httputil.ReverseProxy{
			Transport: transport,
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(at) },
			ModifyResponse: func(resp *http.Response) error {
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					return err
				}
				_ = resp.Body.Close()
				body = mutants[name].change(resp, body)
				resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
				return nil
			},
		}
		wrong := httptest.NewServer(proxy)
		t.Cleanup(wrong.Close)
		real.URL = wrong.URL
		truth.Compare(t, model, real)
		return
	}
	for name, mutant := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCompare_WithAHomeserverThatIsWrong_FailsAndNamesIt$")
			cmd.Env = append(os.Environ(), "TRUTH_MUTANT="+name)
			out, err := cmd.CombinedOutput()
			switch {
			case mutant.says == "" && err != nil:
				t.Errorf("two of the same differ:\n%s", out)
			case mutant.says != "" && (err == nil || !strings.Contains(string(out), mutant.says)):
				t.Errorf("%v, and nothing says %q:\n%.3000s", err, mutant.says, out)
			}
		})
	}
}
