package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
)

// rawAppservice is an appservice without a framework: it says yes to everything and keeps the bodies of transactions.
type rawAppservice struct {
	Registration string // path
	asToken      string

	mu     sync.Mutex
	bodies [][]byte
}

func startRawAppservice(t *testing.T) *rawAppservice {
	t.Helper()
	a := &rawAppservice{asToken: "as_raw", Registration: filepath.Join(t.TempDir(), "registration.yaml")}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: a}}
	server.Start()
	t.Cleanup(server.Close)
	registration := fmt.Sprintf(`id: raw
url: %s
as_token: %s
hs_token: hs_raw
sender_localpart: rawbot
rate_limited: false
receive_ephemeral: true
namespaces:
  users: [{regex: '@raw_.*:hs\.test', exclusive: true}]
`, server.URL, a.asToken)
	if err := os.WriteFile(a.Registration, []byte(registration), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *rawAppservice) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if strings.Contains(r.URL.Path, "/transactions/") {
		a.mu.Lock()
		a.bodies = append(a.bodies, body)
		a.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

// waitFor waits until some transaction holds the text.
func (a *rawAppservice) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		a.mu.Lock()
		for _, body := range a.bodies {
			if bytes.Contains(body, []byte(text)) {
				a.mu.Unlock()
				return
			}
		}
		a.mu.Unlock()
	}
	t.Fatalf("no transaction with %q within %s", text, patience)
}

// call makes a request with a token and returns the status and the answer.
func call(t *testing.T, method, address, token string, body any) (status int, answer map[string]any) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatalf("%s %s: status %d, no JSON: %v", method, address, resp.StatusCode, err)
	}
	return resp.StatusCode, answer
}

// checkSynapse makes sure that a Synapse is what the bridge's tests take it for.
func checkSynapse(t *testing.T, postgres string) {
	appservice := startRawAppservice(t)
	synapse := StartSynapse(t, SynapseOptions{Registrations: []string{appservice.Registration}, Postgres: postgres})

	ghost := "?user_id=@raw_ghost:" + synapse.Domain
	status, answer := call(t, "POST", synapse.URL+"/_matrix/client/v3/register", appservice.asToken,
		map[string]any{"type": "m.login.application_service", "username": "raw_ghost", "inhibit_login": true})
	if status != http.StatusOK || answer["user_id"] != "@raw_ghost:"+synapse.Domain {
		t.Fatalf("registering a ghost: %d %v", status, answer)
	}
	status, answer = call(t, "PUT", synapse.URL+"/_matrix/client/v3/devices/GHOSTDEV"+ghost, appservice.asToken,
		map[string]any{"display_name": "a device"})
	if status != http.StatusCreated {
		t.Fatalf("making a device: %d %v", status, answer)
	}
	status, answer = call(t, "GET", synapse.URL+"/_matrix/client/v3/account/whoami"+ghost+"&device_id=GHOSTDEV",
		appservice.asToken, map[string]any{})
	if status != http.StatusOK || answer["device_id"] != "GHOSTDEV" {
		t.Fatalf("whoami with a device: %d %v", status, answer)
	}

	alice := synapse.User("alice")
	room := alice.CreateRoom("a room", "@raw_ghost:hs.test")
	status, answer = call(t, "POST", synapse.URL+"/_matrix/client/v3/join/"+url.PathEscape(room.String())+ghost+"&device_id=GHOSTDEV",
		appservice.asToken, map[string]any{})
	if status != http.StatusOK {
		t.Fatalf("joining as the ghost: %d %v", status, answer)
	}
	alice.Say(room, "before the end")
	appservice.waitFor(t, "before the end")
	alice.WaitFor("its own words", In(room, "m.text", "before the end"))

	synapse.Kill()
	synapse.Start()
	alice.Say(room, "after the end")
	appservice.waitFor(t, "after the end")
	alice.WaitFor("its own words after the restart", In(room, "m.text", "after the end"))
	if n := alice.Count(func(ev *event.Event) bool { return ev.Content.Raw["body"] == "before the end" }); n != 1 {
		t.Errorf("the first words were seen %d times", n)
	}
}

func TestSynapse_OnSQLite_ServesAnAppserviceAndOutlivesAKill(t *testing.T) { checkSynapse(t, "") }
