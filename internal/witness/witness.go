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

// relay stands between the homeserver and the bridge, and knows in which order the bridge was given what happened. That is not always the order in
// which it happened: Synapse sends a transaction that its own restart has cut off again only when a later one has failed.
type relay struct {
	server *httptest.Server
	client *http.Client
	target string

	gate   sync.Mutex     // held while the homeserver is restarted
	inside sync.WaitGroup // requests that are past the gate

	mu       sync.Mutex
	clock    int // goes on with each transaction, and with each that the bridge took
	passages map[id.EventID]*passage
	missed   int // transactions that the bridge did not answer
}

// passage is when an event first came for the bridge, the how many-th of its transaction, and when the bridge had taken it for the first time.
type passage struct{ came, place, taken int }

func newRelay(t *testing.T, target string) *relay {
	r := &relay{client: &http.Client{Transport: &http.Transport{}}, target: "http://" + target, passages: map[id.EventID]*passage{}}
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
	if strings.Contains(req.URL.Path, "/transactions/") {
		events := r.comes(body)
		defer func() { r.went(events, answered) }()
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

// comes notes the events of a transaction.
func (r *relay) comes(body []byte) []*passage {
	var transaction struct {
		Events []struct {
			ID id.EventID `json:"event_id"`
		} `json:"events"`
	}
	_ = json.Unmarshal(body, &transaction)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	var all []*passage
	for place, ev := range transaction.Events {
		p := r.passages[ev.ID]
		if p == nil {
			p = &passage{came: r.clock, place: place}
			r.passages[ev.ID] = p
		}
		all = append(all, p)
	}
	return all
}

// went notes what became of a transaction.
func (r *relay) went(events []*passage, answered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !answered {
		r.missed++
		return
	}
	r.clock++
	for _, p := range events {
		if p.taken == 0 {
			p.taken = r.clock
		}
	}
}

// during restarts the homeserver.
func (r *relay) during(restart func()) {
	r.gate.Lock()
	defer r.gate.Unlock()
	restart()
	r.inside.Wait() // for what the old one has sent, and does not wait for any more
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
	return r.passages[ev] != nil
}

// before says whether the bridge must know that x was there before y: it had taken x when y came, or got both at once in this order.
func (r *relay) before(x, y id.EventID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, b := r.passages[x], r.passages[y]
	switch {
	case a == nil || b == nil:
		return false
	case a.came == b.came:
		return a.place < b.place
	}
	return a.taken != 0 && a.taken < b.came
}
