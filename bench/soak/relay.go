package soak

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/id"
)

// relay stands between the homeserver and the bridge, and knows which transactions come late. Synapse sends one that its own
// restart has cut off again only when a later one has failed, so its events may come after later ones; its number is less than
// that of the later one. After a restart the numbers may begin again, but never below one that is to be sent again.
type relay struct {
	server *httptest.Server
	client *http.Client
	target string

	gate   sync.Mutex     // held while the homeserver is restarted
	inside sync.WaitGroup // requests that are past the gate

	mu      sync.Mutex
	highest int // number since the last restart
	seen    map[id.EventID]bool
	loose   map[id.EventID]bool // those that may come out of order
	missed  int                 // transactions that the bridge did not answer
}

func newRelay(t *testing.T, target string) *relay {
	r := &relay{client: &http.Client{Transport: &http.Transport{}}, target: "http://" + target, seen: map[id.EventID]bool{}, loose: map[id.EventID]bool{}}
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
	r.gate.Lock()
	r.inside.Add(1)
	r.gate.Unlock()
	defer r.inside.Done()
	if req.Context().Err() != nil {
		panic(http.ErrAbortHandler) // it waited at the gate, and whoever sent it is gone
	}
	answered := false
	if _, number, ok := strings.Cut(req.URL.Path, "/transactions/"); ok {
		r.note(number, body)
		defer func() {
			if !answered {
				r.mu.Lock()
				r.missed++
				r.mu.Unlock()
			}
		}()
	}
	out, err := http.NewRequestWithContext(req.Context(), req.Method, r.target+req.URL.RequestURI(), bytes.NewReader(body))
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
	answered = resp.StatusCode == http.StatusOK
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
}

// note looks at a transaction.
func (r *relay) note(number string, body []byte) {
	var transaction struct {
		Events []struct {
			ID id.EventID `json:"event_id"`
		} `json:"events"`
	}
	_ = json.Unmarshal(body, &transaction)
	n, err := strconv.Atoi(number)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range transaction.Events {
		r.seen[ev.ID] = true
	}
	if err == nil && n >= r.highest {
		r.highest = n
		return
	}
	for _, ev := range transaction.Events {
		r.loose[ev.ID] = true
	}
}

// during restarts the homeserver.
func (r *relay) during(restart func()) {
	r.gate.Lock()
	defer r.gate.Unlock()
	restart()
	r.inside.Wait() // for what the old one has sent, and does not wait for any more
	r.mu.Lock()
	r.highest = 0
	r.mu.Unlock()
}

// missing counts the transactions that the bridge did not answer.
func (r *relay) missing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missed
}

// saw says whether an event was in a transaction, whatever the bridge answered.
func (r *relay) saw(ev id.EventID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[ev]
}

func (r *relay) isLoose(ev id.EventID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loose[ev]
}
