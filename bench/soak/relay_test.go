package soak

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/id"
)

// relay stands between the homeserver and the bridge, and knows which transaction was under way when the homeserver was
// restarted. Synapse sends that one again only when a later one has failed, so its events may come after later ones.
type relay struct {
	server *httptest.Server
	client *http.Client
	target string

	gate  sync.RWMutex // held while the homeserver is restarted
	mu    sync.Mutex
	last  []id.EventID        // of the transaction that came last
	loose map[id.EventID]bool // those that may come out of order
}

func newRelay(t *testing.T, target string) *relay {
	r := &relay{client: &http.Client{Transport: &http.Transport{}}, target: "http://" + target, loose: map[id.EventID]bool{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.server.Close()
		r.client.CloseIdleConnections()
	})
	return r
}

func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if strings.Contains(req.URL.Path, "/transactions/") {
		var transaction struct {
			Events []struct {
				ID id.EventID `json:"event_id"`
			} `json:"events"`
		}
		_ = json.Unmarshal(body, &transaction)
		r.mu.Lock()
		r.last = nil
		for _, ev := range transaction.Events {
			r.last = append(r.last, ev.ID)
		}
		r.mu.Unlock()
	}
	r.gate.RLock() // not while the homeserver is restarted
	out, err := http.NewRequestWithContext(req.Context(), req.Method, r.target+req.URL.RequestURI(), bytes.NewReader(body))
	r.gate.RUnlock()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header = req.Header.Clone()
	resp, err := r.client.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler) // nobody answers: the connection breaks off
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
}

// during runs restart, and notes what it may have put out of order: what was under way before, and what has come to the gate.
func (r *relay) during(restart func()) {
	r.gate.Lock()
	defer r.gate.Unlock()
	r.loosen()
	restart()
	r.loosen()
}

func (r *relay) loosen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.last {
		r.loose[ev] = true
	}
}

func (r *relay) isLoose(ev id.EventID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loose[ev]
}
