package bridgetest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// FuzzServeHTTP feeds requests of any path and body: none may break the homeserver. A 500 has two causes, which are
// Synapse's own: a device without a user, and /sync of a sender_localpart.
func FuzzServeHTTP(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/_matrix/client/v3/sync?user_id=@demo_a:hs.test&since=s1&filter={%22room%22:{}}", ""},
		{"GET", "/_matrix/client/v3/sync", ""},
		{"PUT", "/_matrix/client/v3/rooms/%21x:hs.test/send/m.room.message/1?user_id=@demo_a:hs.test", `{"body":"x"}`},
		{"PUT", "/_matrix/client/v3/rooms/%21x:hs.test/state/m.room.power_levels/", `{"users":[],"ban":"x","events":{"a":{}}}`},
		{"POST", "/_matrix/client/v3/createRoom", `{"power_level_content_override":{"users":null,"ban":{}},"initial_state":[{"type":"m.room.member","state_key":"x"}]}`},
		{"POST", "/_matrix/client/v3/keys/upload?user_id=@demobot:hs.test&device_id=D", `{"one_time_keys":{"":null},"device_keys":1}`},
		{"POST", "/_matrix/client/v3/keys/signatures/upload", `{"@demobot:hs.test":{"D":{"signatures":{"":{}}}}}`},
		{"GET", "/_matrix/client/v3/rooms/%ff/messages?dir=b&from=s9223372036854775807&limit=-1", ""},
		{"PUT", "/_matrix/client/v3/devices/D", "null"},
		{"POST", "/_matrix/media/v3/upload", "x"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	hs, err := bridgetest.StartHomeserver(bridgetest.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = hs.Close() })
	if err := hs.AddRegistration(registration("")); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://hs.test"+target, strings.NewReader(body))
		if err != nil || strings.Contains(target, "timeout") {
			return // not a request, or one that waits
		}
		req.Header.Set("Authorization", "Bearer as-token")
		rec := httptest.NewRecorder()
		hs.ServeHTTP(rec, req)
		query := req.URL.Query()
		refused := strings.HasSuffix(req.URL.Path, "/sync") && (!query.Has("user_id") || query.Get("user_id") == "@demobot:hs.test")
		if rec.Code == http.StatusInternalServerError && !refused && !strings.Contains(req.URL.RawQuery, "device_id") {
			t.Fatalf("%s %s %s: %d %s", method, target, body, rec.Code, rec.Body)
		}
	})
}

func FuzzParseRegistration(f *testing.F) {
	f.Add("id: demo\nurl: http://127.0.0.1:1\nnamespaces:\n  users: [{regex: '@demo_.*', exclusive: true}]\n")
	f.Add("io.element.msc4190: true\nreceive_ephemeral: yes\nurl: null\n")
	f.Add("[")
	f.Fuzz(func(t *testing.T, data string) {
		if reg, err := bridgetest.ParseRegistration([]byte(data)); (reg == nil) == (err == nil) {
			t.Fatalf("got %v and %v", reg, err)
		}
	})
}

func TestAddRegistration_WithAMistake_NamesIt(t *testing.T) {
	hs := bridgetest.NewHomeserver(t)
	if err := hs.AddRegistration(registration("")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*bridgetest.Registration)
	}{
		{"hs_token", func(r *bridgetest.Registration) { r.HSToken = "" }},
		{"ID is taken", func(r *bridgetest.Registration) { r.ASToken = "other" }},
		{"as_token is another's", func(r *bridgetest.Registration) { r.ID = "other" }},
		{"namespace", func(r *bridgetest.Registration) {
			r.ID, r.ASToken = "third", "third"
			r.Namespaces.Rooms = []bridgetest.Namespace{{Regex: "("}}
		}},
	} {
		reg := registration("")
		c.change(reg)
		if err := hs.AddRegistration(reg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want it to name %q", err, c.want)
		}
	}
}

func TestClose_RequestsAfterIt_AreCutOff(t *testing.T) {
	hs := bridgetest.NewHomeserver(t)
	if err := hs.Close(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("the request was answered")
		}
	}()
	hs.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/_matrix/client/versions", nil))
}
