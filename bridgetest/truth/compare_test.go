package truth

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// mutants are homeservers that are wrong in one answer of a case, and what the comparison has to say about them.
var mutants = map[string]struct {
	in     string
	change func(*http.Response, []byte) []byte
	says   string
}{
	"nothing":          {"what the room knows", replacing("none of it", ""), ""},
	"another errcode":  {"register a ghost", replacing("M_USER_IN_USE", "M_IN_USE"), `/errcode is "M_USER_IN_USE", really "M_IN_USE"`},
	"a field less":     {"masquerading", replacing(`"is_guest"`, `"guest"`), "/is_guest is not there really"},
	"a field more":     {"masquerading", replacing(`"is_guest"`, `"new":1,"is_guest"`), "/new is missing"},
	"another value":    {"versions and capabilities", replacing(`"enabled":true`, `"enabled":1`), "/capabilities/m.set_avatar_url/enabled is true, really 1"},
	"another type":     {"masquerading", replacing(`"is_guest":false`, `"is_guest":"no"`), `/is_guest is false, really "no"`},
	"an element less":  {"history", replacing(`"events_after":[{`, `"events_after":[],"x":[{`), "/events_after is [{"},
	"an ID of no form": {"history", replacing(`"room_id":"!`, `"room_id":"?`), `/room_id is "\u003croom`},
	"another status": {"a device without a user", func(resp *http.Response, body []byte) []byte {
		if resp.StatusCode == http.StatusCreated {
			resp.StatusCode = http.StatusOK
		}
		return body
	}, "differing: status"},
	"a header less": {"media that is uploaded later", func(resp *http.Response, body []byte) []byte {
		resp.Header.Del("Content-Disposition")
		return body
	}, `header Content-Disposition is "inline`},
	"other media": {"media that is uploaded later", replacing("at last", "at lost"), ` is "at last", really "at lost"`},
}

func replacing(old, with string) func(*http.Response, []byte) []byte {
	return func(_ *http.Response, body []byte) []byte { return bytes.ReplaceAll(body, []byte(old), []byte(with)) }
}

func TestCompare_WithAHomeserverThatIsWrong_NamesWhatIs(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	hs := bridgetest.NewHomeserver(t)
	model := Target{URL: hs.URL(), Domain: hs.Domain(), Tokens: map[string]string{"alice": hs.User("alice").Token()}}
	for _, reg := range Registrations(hs.Domain()) {
		if err := hs.AddRegistration(reg); err != nil {
			t.Fatal(err)
		}
		model.Tokens[reg.ID] = reg.ASToken
	}
	for name, mutant := range mutants {
		t.Run(name, func(t *testing.T) {
			wrong := model
			wrong.URL = changed(t, model.URL, mutant.change)
			found := false
			for _, c := range cases {
				if c.Name != mutant.in {
					continue
				}
				found = true
				problems := strings.Join(compare(t.Context(), &c, model, wrong), "\n")
				if mutant.says == "" && problems != "" || !strings.Contains(problems, mutant.says) {
					t.Errorf("want %q in: %s", mutant.says, problems)
				}
			}
			if !found {
				t.Errorf("there is no case %q", mutant.in)
			}
		})
	}
}

// changed is a homeserver whose answers are another's, changed.
func changed(t *testing.T, address string, change func(*http.Response, []byte) []byte) string {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Transport: &http.Transport{DisableKeepAlives: true},
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(at) },
		ModifyResponse: func(resp *http.Response) error {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			body = change(resp, body)
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
			return nil
		},
	})
	t.Cleanup(server.Close)
	return server.URL
}
