package witness

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

// reading is a room's history on its way to the bridge, from the newest backwards.
type reading struct {
	room   string
	came   int // when it was begun
	place  int
	events []*passage // what the bridge has perhaps not taken
}

// Homeserver gives the address at which the bridge is to find the homeserver, so that what it reads of a room's history is known: it is given that when it reads it,
// in the order of the history. It has taken it when it begins with the next room; a process that ends before may have taken it or not.
func (w *Witness) Homeserver(tb testing.TB, target string) string {
	to, err := url.Parse(target)
	if err != nil {
		tb.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		Transport:     w.client.Transport,
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			room, from, reads := ofHistory(resp.Request)
			if !reads || resp.StatusCode != http.StatusOK {
				return nil
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			w.read(room, from == "", body)
			resp.Body = io.NopCloser(strings.NewReader(string(body)))
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // the connection breaks off
	}
	server := httptest.NewServer(proxy)
	tb.Cleanup(server.Close)
	return server.URL
}

// ofHistory: who looks for something of his own has a filter.
func ofHistory(req *http.Request) (room, from string, reads bool) {
	query := req.URL.Query()
	path, messages := strings.CutSuffix(req.URL.Path, "/messages")
	return path, query.Get("from"), messages && req.Method == http.MethodGet && query.Get("dir") == "b" && !query.Has("filter")
}

// read notes a page.
func (w *Witness) read(room string, first bool, body []byte) {
	var page struct {
		Chunk []struct {
			ID id.EventID `json:"event_id"`
		} `json:"chunk"`
	}
	_ = json.Unmarshal(body, &page)
	w.mu.Lock()
	defer w.mu.Unlock()
	if first {
		w.clock++
		if w.reading.room == room {
			w.reading = reading{room: room, came: w.clock, events: w.reading.events} // it begins again
		} else {
			w.tookReading()
			w.reading = reading{room: room, came: w.clock}
		}
	}
	for _, ev := range page.Chunk {
		p := w.passages[ev.ID]
		if p == nil {
			w.reading.place--
			p = &passage{came: w.reading.came, place: w.reading.place}
			w.passages[ev.ID] = p
		}
		w.reading.events = append(w.reading.events, p)
	}
}

// tookReading notes that what was read is taken.
func (w *Witness) tookReading() {
	w.clock++
	for _, p := range w.reading.events {
		if p.taken == 0 {
			p.taken = w.clock
		}
	}
}

// Begins is called before a process of the bridge begins.
func (w *Witness) Begins() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.reading.events {
		if p.taken == 0 {
			p.loose = true
		}
	}
	w.reading = reading{}
}
