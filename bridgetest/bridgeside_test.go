package bridgetest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// bridgeSide is an appservice that answers as it is told and remembers what it was asked.
type bridgeSide struct {
	url string

	mu      sync.Mutex
	changed chan struct{}
	asked   []asked
	answer  func(a asked) (status int, body string)
}

type asked struct {
	Method, Path, Query, Auth string
	Body                      map[string]any
}

func (a asked) transaction() string {
	id, _ := strings.CutPrefix(a.Path, "/_matrix/app/v1/transactions/")
	return id
}

func (a asked) list(key string) []map[string]any {
	raw, _ := a.Body[key].([]any)
	var out []map[string]any
	for _, e := range raw {
		m, _ := e.(map[string]any)
		out = append(out, m)
	}
	return out
}

func newBridgeSide(t *testing.T) *bridgeSide {
	b := &bridgeSide{changed: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *bridgeSide) serve(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	a := asked{Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Auth: r.Header.Get("Authorization")}
	_ = json.Unmarshal(data, &a.Body)
	b.mu.Lock()
	status, body := 200, "{}"
	answer := b.answer
	b.asked = append(b.asked, a)
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	if answer != nil {
		status, body = answer(a)
	}
	if status/100 == 3 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// answers tells how to answer from now on.
func (b *bridgeSide) answers(fn func(a asked) (int, string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = fn
}

// transactions returns what came, transactions only.
func (b *bridgeSide) transactions() []asked {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []asked
	for _, a := range b.asked {
		if a.Method == http.MethodPut {
			out = append(out, a)
		}
	}
	return out
}

// until waits until enough tells that what came is enough.
func (b *bridgeSide) until(w *world, enough func([]asked) bool) []asked {
	w.Helper()
	for {
		b.mu.Lock()
		all, changed := append([]asked(nil), b.asked...), b.changed
		b.mu.Unlock()
		if enough(all) {
			return all
		}
		select {
		case <-changed:
		case <-w.ctx.Done():
			w.Fatalf("it never came; what came: %v", all)
		}
	}
}

// event waits for an event that matches.
func (b *bridgeSide) event(w *world, match func(map[string]any) bool) map[string]any {
	return b.element(w, "events", match)
}

func (b *bridgeSide) element(w *world, key string, match func(map[string]any) bool) map[string]any {
	w.Helper()
	var found map[string]any
	b.until(w, func(all []asked) bool {
		for _, a := range all {
			for _, ev := range a.list(key) {
				if match(ev) {
					found = ev
					return true
				}
			}
		}
		return false
	})
	return found
}

func body(want string) func(map[string]any) bool {
	return func(ev map[string]any) bool {
		content, _ := ev["content"].(map[string]any)
		return content["body"] == want
	}
}
