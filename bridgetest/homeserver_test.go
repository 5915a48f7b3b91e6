package bridgetest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a homeserver with an appservice that remembers what it was sent.
type world struct {
	*testing.T
	ctx context.Context
	hs  *bridgetest.Homeserver
	as  *bridgeSide
}

func start(t *testing.T, change ...func(*bridgetest.Registration)) *world {
	return startWith(t, bridgetest.Options{}, change...)
}

func startWith(t *testing.T, opts bridgetest.Options, change ...func(*bridgetest.Registration)) *world {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t, opts), as: newBridgeSide(t)}
	reg := registration(w.as.url)
	for _, f := range change {
		f(reg)
	}
	w.no(w.hs.AddRegistration(reg))
	return w
}

func registration(url string) *bridgetest.Registration {
	return &bridgetest.Registration{
		ID: "demo", URL: url, ASToken: "as-token", HSToken: "hs-token", SenderLocalpart: "demobot", ReceiveEphemeral: true,
		Namespaces: bridgetest.Namespaces{
			Users:   []bridgetest.Namespace{{Regex: `@demo_.*:hs\.test`, Exclusive: true}},
			Aliases: []bridgetest.Namespace{{Regex: `#demo_.*:hs\.test`, Exclusive: true}},
		},
	}
}

func (w *world) no(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// is fails unless got and want are the same when printed as JSON.
func (w *world) is(got, want any) {
	w.Helper()
	a, err := json.Marshal(got)
	w.no(err)
	b, err := json.Marshal(want)
	w.no(err)
	if string(a) != string(b) {
		w.Fatalf("got %s, want %s", a, b)
	}
}

func must[T any](v T, err error) func(*world) T {
	return func(w *world) T {
		w.Helper()
		w.no(err)
		return v
	}
}

// asService makes a raw request with the as_token and returns status and answer.
func (w *world) asService(method, path, body string) (int, map[string]any) {
	w.Helper()
	return w.request("as-token", method, path, body)
}

func (w *world) request(token, method, path, body string) (int, map[string]any) {
	w.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	if !strings.HasPrefix(path, "/_matrix") {
		path = "/_matrix/client/v3/" + path
	}
	req, err := http.NewRequestWithContext(w.ctx, method, w.hs.URL()+path, reader)
	w.no(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	w.no(err)
	defer func() { _ = resp.Body.Close() }()
	defer http.DefaultClient.CloseIdleConnections()
	data, err := io.ReadAll(resp.Body)
	w.no(err)
	var out map[string]any
	if len(data) > 0 {
		w.no(json.Unmarshal(data, &out))
	}
	return resp.StatusCode, out
}

// expect is a table row: a request by the appservice, its status and error code.
func (w *world) expect(method, path, body string, status int, code string) map[string]any {
	w.Helper()
	got, answer := w.asService(method, path, body)
	if errcode, _ := answer["errcode"].(string); got != status || errcode != code {
		w.Fatalf("%s %s: got %d %v, want %d %q", method, path, got, answer, status, code)
	}
	return answer
}

// ghost registers a ghost and returns mautrix's client acting as it.
func (w *world) ghost(localpart string) *mautrix.Client {
	w.Helper()
	client, err := mautrix.NewClient(w.hs.URL(), "", "as-token")
	w.no(err)
	client.Client = &http.Client{Transport: &http.Transport{}}
	w.Cleanup(client.Client.CloseIdleConnections)
	_, _, err = client.Register(w.ctx, &mautrix.ReqRegister[any]{Username: localpart, Type: mautrix.AuthTypeAppservice, InhibitLogin: true})
	w.no(err)
	client.UserID = id.NewUserID(localpart, w.hs.Domain())
	client.SetAppServiceUserID = true
	return client
}
