package appservice

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

func TestRedirect_ToAnotherPort_NeverCarriesTheToken(t *testing.T) {
	var seen []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.Header.Get("Authorization")+r.Header.Get("Cookie")+r.Header.Get("Referer"))
		_, _ = w.Write([]byte("data"))
	}))
	defer elsewhere.Close()
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.URL.Path, "/send/") || strings.Contains(r.URL.Path, "/download/") || strings.Contains(r.URL.Path, "/joined_members") {
			http.Redirect(w, r, strings.Replace(elsewhere.URL, "://", "://user:secret@", 1)+r.URL.Path, http.StatusTemporaryRedirect)
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

// What is asked through http.Client is what a homeserver's redirects lead to: a host by each of its names and ports.
func TestRedirect_GoesOnWithTheTokenOnlyAtTheSameSchemeHostAndPort(t *testing.T) {
	const refused, without = "refused", ""
	for _, c := range []struct {
		from, to string
		media    string // the Authorization at the end, for a download
		other    string // and for anything else
	}{
		{"https://hs.test", "https://hs.test/there", "Bearer T", "Bearer T"},
		{"https://hs.test", "https://HS.test:443/there", without, without}, // net/http compares the words
		{"https://hs.test", "https://user:pw@hs.test/there", "Bearer T", "Bearer T"},
		{"https://hs.test", "http://hs.test/there", refused, refused},
		{"https://hs.test", "https://hs.test:8448/there", without, refused},
		{"https://hs.test", "https://cdn.hs.test/there", without, refused},
		{"https://hs.test", "https://user:pw@cdn.test/there", without, refused},
		{"https://cdn.hs.test", "https://hs.test/there", without, refused},
		{"https://hs.test", "https://hs.test.evil/there", without, refused},
		{"http://hs.test", "https://hs.test/there", without, refused},
		{"http://hs.test:8008", "http://hs.test/there", without, refused},
		{"https://hs.test", "//cdn.test/there", without, refused},
		{"https://hs.test", "/there", "Bearer T", "Bearer T"},
	} {
		for path, want := range map[string]string{"/_matrix/client/v1/media/download/hs.test/x": c.media, "/_matrix/client/v3/devices": c.other} {
			got := "nothing was asked"
			client := &http.Client{CheckRedirect: checkRedirect, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path == path {
					return &http.Response{StatusCode: 307, Header: http.Header{"Location": {c.to}}, Body: http.NoBody, Request: r}, nil
				}
				got = r.Header.Get("Authorization")
				return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
			})}
			req, err := http.NewRequest(http.MethodGet, c.from+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer T")
			resp, err := client.Do(req)
			if resp != nil && resp.Body != nil {
				_ = resp.Body.Close()
			}
			if errors.Is(err, errRedirect) || errors.Is(err, errDowngrade) {
				got = refused
			}
			if got != want {
				t.Errorf("%s%s to %s: %q, want %q (%v)", c.from, path, c.to, got, want, err)
			}
		}
	}
}

// A content delivery network that sends a download back to the homeserver must not choose what is asked there as the bridge.
func TestRedirect_BackFromElsewhere_IsWithoutTheToken(t *testing.T) {
	step := func(to string) *http.Request {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Authorization": {"Bearer T"}}}
	}
	first, away, back := step("https://hs.test/_matrix/client/v1/media/download/a/b"), step("https://cdn.test/x"), step("https://hs.test/_matrix/client/v3/joined_rooms")
	if err := checkRedirect(back, []*http.Request{first, away}); err != nil || back.Header.Get("Authorization") != "" {
		t.Errorf("%q %v", back.Header.Get("Authorization"), err)
	}
	var many []*http.Request
	for range maxRedirects {
		many = append(many, first)
	}
	if err := checkRedirect(step("https://hs.test/y"), many); err == nil {
		t.Error("redirects without end are followed")
	}
}

func TestRedirect_TokenInALocation_IsInNoError(t *testing.T) {
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.URL.Path, "/send/") {
			http.Redirect(w, r, "https://elsewhere.test/?access_token="+testASToken, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t"); err == nil || strings.Contains(err.Error(), testASToken) {
		t.Errorf("%v", err)
	}
}
