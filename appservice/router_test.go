package appservice

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// endpoints are all paths that there are, each with its one method and what it answers with nobody to ask.
var endpoints = []struct {
	method, path string
	legacy       bool
	status       int
}{
	{"PUT", "/_matrix/app/v1/transactions/1", false, 200},
	{"PUT", "/_matrix/app/v1/transactions/a%2Fb", false, 200},
	{"POST", "/_matrix/app/v1/ping", false, 200},
	{"GET", "/_matrix/app/v1/users/%40irc_x%3Ahs.test", false, 404},
	{"GET", "/_matrix/app/v1/rooms/%23irc_x%3Ahs.test", false, 404},
	{"GET", "/_matrix/app/v1/thirdparty/protocol/irc", false, 404},
	{"GET", "/_matrix/app/v1/thirdparty/user/irc", false, 404},
	{"GET", "/_matrix/app/v1/thirdparty/user", false, 404},
	{"GET", "/_matrix/app/v1/thirdparty/location/irc", false, 404},
	{"GET", "/_matrix/app/v1/thirdparty/location", false, 404},
	{"PUT", "/transactions/2", true, 200},
	{"GET", "/users/%40irc_x%3Ahs.test", true, 404},
	{"GET", "/rooms/%23irc_x%3Ahs.test", true, 404},
	{"GET", "/_matrix/app/unstable/thirdparty/protocol/irc", true, 404},
	{"GET", "/_matrix/app/unstable/thirdparty/user/irc", true, 404},
	{"GET", "/_matrix/app/unstable/thirdparty/user", true, 404},
	{"GET", "/_matrix/app/unstable/thirdparty/location/irc", true, 404},
	{"GET", "/_matrix/app/unstable/thirdparty/location", true, 404},
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}

func TestA25_EveryPathAndMethod_KnownPathWrongMethodIs405WithAllow(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		f := newFixture(t, nil, func(c *Config) { c.LegacyPaths = legacy })
		for _, e := range endpoints {
			for _, method := range methods {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(method, "http://bridge"+e.path, strings.NewReader(`{"events":[]}`))
				r.Header.Set("Authorization", "Bearer "+testHSToken)
				f.as.ServeHTTP(w, r)
				want, allow, code := e.status, "", ""
				switch {
				case e.legacy && !legacy:
					want, code = 404, codeUnrecognized
				case method != e.method:
					want, allow, code = 405, e.method, codeUnrecognized
				case want == 404:
					code = codeNotFound
				}
				if w.Code != want || w.Header().Get("Allow") != allow || !strings.Contains(w.Body.String(), code) || w.Header().Get("Content-Type") != "application/json" {
					t.Errorf("legacy paths %v: %s %s: %d, Allow %q, %s; want %d, %q, %s", legacy, method, e.path, w.Code, w.Header().Get("Allow"), w.Body, want, allow, code)
				}
			}
		}
	}
}

func TestA25_UnknownPath_Is404WithOrWithoutToken(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.LegacyPaths = true })
	for _, path := range []string{
		"/", "/_matrix", "/_matrix/app/v1", "/_matrix/app/v1/", "/_matrix/app/v1/nothing", "/_matrix/app/v2/ping", "/_matrix/app/v1/ping/", "/ping",
		"/_matrix/app/v1/transactions", "/_matrix/app/v1/transactions/", "/_matrix/app/v1/transactions/1/2", "/_matrix/app/v1//transactions/1",
		"/_matrix/app/v1/../v1/transactions/1", "/_matrix%2Fapp/v1/transactions/1", "/_matrix/app/v1/users/", "/_matrix/app/v1/users/a/b", "/users", "/rooms/",
		"/_matrix/app/v1/thirdparty", "/_matrix/app/v1/thirdparty/user/irc/x", "/_matrix/app/v1/thirdparty/protocol", "/_matrix/app/v1/thirdparty/protocols",
		"/_matrix/client/versions", "/transactions/", "/_MATRIX/app/v1/transactions/1",
	} {
		for _, method := range []string{"GET", "PUT", "POST"} {
			for _, auth := range []string{"", "Bearer wrong", "Bearer " + testHSToken} {
				if code, body := f.do(method, path, `{"events":[]}`, auth); code != 404 || !strings.Contains(body, codeUnrecognized) {
					t.Errorf("%s %s with %q: %d %s", method, path, auth, code, body)
				}
			}
		}
	}
}

func TestA22_EveryEndpoint_WantsTheToken(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.LegacyPaths, c.AllowQueryToken = true, true })
	for _, e := range endpoints {
		for _, c := range []struct {
			query, auth string
			status      int
		}{
			{"", "", 401}, {"", "Bearer wrong", 403}, {"?access_token=wrong", "Bearer " + testHSToken, 403},
			{"?access_token=" + testHSToken, "Bearer wrong", 403}, {"?access_token=wrong&access_token=" + testHSToken, "", 403},
			{"?access_token=" + testHSToken, "", e.status}, {"?access_token=" + testHSToken, "Bearer " + testHSToken, e.status},
		} {
			if code, body := f.do(e.method, e.path+c.query, `{"events":[]}`, c.auth); code != c.status {
				t.Errorf("%s %s%s with %q: %d %s, want %d", e.method, e.path, c.query, c.auth, code, body, c.status)
			}
		}
	}
}

func TestA22_TwoHeaders_MustAgreeToo(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{"Bearer " + testHSToken, "Bearer " + testHSToken}, 200},
		{[]string{"Bearer " + testHSToken, "Bearer wrong"}, 403},
	} {
		r := httptest.NewRequest("PUT", "/_matrix/app/v1/transactions/1", strings.NewReader(`{}`))
		r.Header["Authorization"] = c.headers
		w := httptest.NewRecorder()
		f.as.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%q: %d", c.headers, w.Code)
		}
	}
}

// What is not even a request never comes to the router: net/http refuses it, and goes on serving.
func TestRouter_InvalidEscapes_AreRefusedByTheServer(t *testing.T) {
	f := newFixture(t, nil)
	server := httptest.NewServer(f.as)
	defer server.Close()
	for _, c := range []struct {
		path   string
		status int
	}{
		{"/_matrix/app/v1/users/%zz", 400}, {"/_matrix/app/v1/users/%4", 400}, {"/_matrix/app/v1/users/%", 400},
		{"/_matrix/app/v1/users/%ff%fe", 404}, {"/_matrix/app/v1/users/%00", 404}, {"/_matrix/app/v1/users/@irc_x:hs.test", 404},
		{"/_matrix/app/v1/users/%40irc_a%2525:hs.test", 404}, {"/_matrix/app/v1/thirdparty/user?userid=%zz", 404},
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", c.path, testHSToken)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(c.path, err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		_ = conn.Close()
		if response.StatusCode != c.status {
			t.Errorf("%s: %s", c.path, response.Status)
		}
	}
}
