// Package witness is for tests: a [Witness] stands between a homeserver and a bridge, and knows in which order the bridge was given what happened.
package witness

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

// Witness is the homeserver's way to the bridge. The order in which the bridge is given what happened is not always that in which it happened: Synapse
// begins with a transaction that nobody answered, or that its own restart has cut off, again only when a later one has failed.
type Witness struct {
	URL string // for the registration

	client *http.Client
	target string

	gate   sync.Mutex     // held while the homeserver is restarted
	inside sync.WaitGroup // requests that are past the gate

	mu       sync.Mutex
	clock    int // goes on with each transaction, and with each that the bridge took
	passages map[id.EventID]*passage
	missed   int // transactions that the bridge did not answer
	reading  reading
}

// passage is when an event first came for the bridge, the how many-th of its transaction or reading, and when the bridge had taken it for the first time.
type passage struct {
	came, place, taken int
	sent               bool // in a transaction
	loose              bool // a process ended that had read it, and may not have taken what it read
}

// New stands before a bridge's address, until the test ends.
func New(tb testing.TB, target string) *Witness {
	w := &Witness{client: &http.Client{Transport: &http.Transport{}}, target: "http://" + target, passages: map[id.EventID]*passage{}}
	server := httptest.NewServer(w)
	w.URL = server.URL
	tb.Cleanup(func() {
		server.Close()
		w.client.CloseIdleConnections()
	})
	return w
}

func (w *Witness) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.gate.Lock()
	w.inside.Add(1)
	w.gate.Unlock()
	defer w.inside.Done()
	if req.Context().Err() != nil {
		panic(http.ErrAbortHandler) // it waited at the gate, and whoever sent it is gone
	}
	answered := false
	if strings.Contains(req.URL.Path, "/transactions/") {
		events := w.comes(body)
		defer func() { w.went(events, answered) }()
	}
	out, err := http.NewRequestWithContext(req.Context(), req.Method, w.target+req.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header = req.Header.Clone()
	resp, err := w.client.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler) // nobody answers: the connection breaks off
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	answered = resp.StatusCode == http.StatusOK
	rw.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	rw.WriteHeader(resp.StatusCode)
	_, _ = rw.Write(answer)
}

// comes notes the events of a transaction.
func (w *Witness) comes(body []byte) []*passage {
	var transaction struct {
		Events []struct {
			ID id.EventID `json:"event_id"`
		} `json:"events"`
	}
	_ = json.Unmarshal(body, &transaction)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock++
	var all []*passage
	for place, ev := range transaction.Events {
		p := w.passages[ev.ID]
		if p == nil {
			p = &passage{came: w.clock, place: place}
			w.passages[ev.ID] = p
		}
		p.sent = true
		all = append(all, p)
	}
	return all
}

// went notes what became of a transaction.
func (w *Witness) went(events []*passage, answered bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !answered {
		w.missed++
		return
	}
	w.clock++
	for _, p := range events {
		if p.taken == 0 {
			p.taken = w.clock
		}
	}
}

// During restarts the homeserver.
func (w *Witness) During(restart func()) {
	w.gate.Lock()
	defer w.gate.Unlock()
	restart()
	w.inside.Wait() // for what the old one has sent, and does not wait for any more
}

// Missed counts the transactions that the bridge did not answer.
func (w *Witness) Missed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.missed
}

// Saw says whether an event was in a transaction, whatever the bridge answered.
func (w *Witness) Saw(ev id.EventID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passages[ev] != nil && w.passages[ev].sent
}

// Took says whether an event was in a transaction, and the bridge has taken it by now.
func (w *Witness) Took(ev id.EventID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passages[ev] != nil && w.passages[ev].sent && w.passages[ev].taken != 0
}

// Before says whether the bridge must know that x was there before y: it had taken x when y came, or got both at once in this order, in one transaction or in one
// reading of the room's history.
func (w *Witness) Before(x, y id.EventID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, b := w.passages[x], w.passages[y]
	switch {
	case a == nil || b == nil, a.came == b.came && (a.loose || b.loose):
		return false
	case a.came == b.came:
		return a.place < b.place
	}
	return a.taken != 0 && a.taken < b.came
}
