package truth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Pushes is an appservice that writes down what a homeserver sends it, while a scenario runs there: [Pushes.Record].
type Pushes struct {
	// Registration is to be known to the homeserver before the scenario begins.
	Registration *bridgetest.Registration

	mu      sync.Mutex
	got     []push
	failing string        // what a transaction holds with which the failures begin; empty: none does
	failed  bool          // they have begun
	once    *answerOnce   // how the next one that holds something is answered
	changed chan struct{} // closed and replaced with each request
}

// push is one request of the homeserver.
type push struct {
	method, path, query string // the path is what follows /_matrix/app/v1/
	header              http.Header
	raw                 string
	body                map[string]any
	refused             bool
}

// NewPushes starts an appservice that ends with the test. Those of several homeservers need one each.
func NewPushes(tb testing.TB, domain string) *Pushes {
	tb.Helper()
	p := &Pushes{changed: make(chan struct{})}
	server := httptest.NewServer(p)
	tb.Cleanup(server.Close)
	p.Registration = &bridgetest.Registration{
		ID: "echo", URL: server.URL, ASToken: "as-token-echo", HSToken: "hs-token-echo+/", SenderLocalpart: "echobot",
		ReceiveEphemeral: true, DeviceExtensions: true,
		Namespaces: bridgetest.Namespaces{
			Users:   []bridgetest.Namespace{{Regex: "@echo_.*:" + domain, Exclusive: true}},
			Aliases: []bridgetest.Namespace{{Regex: "#echo_.*:" + domain, Exclusive: true}},
		},
	}
	return p
}

// ServeHTTP takes everything, knows nobody, and fails as the scenario wants.
func (p *Pushes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	got := push{
		method: r.Method, path: strings.TrimPrefix(r.URL.EscapedPath(), "/_matrix/app/v1/"), query: r.URL.RawQuery, header: r.Header, raw: string(data),
	}
	_ = json.Unmarshal(data, &got.body)
	status, answer := http.StatusOK, "{}"
	if r.Method == http.MethodGet {
		status, answer = http.StatusNotFound, `{"errcode":"M_NOT_FOUND"}`
	}
	p.mu.Lock()
	if got.transaction() != "" && p.failing != "" && (p.failed || strings.Contains(got.raw, p.failing)) {
		p.failed, got.refused = true, true
		status, answer = http.StatusInternalServerError, `{"errcode":"M_UNKNOWN"}`
	}
	if once := p.once; once != nil && got.transaction() != "" && strings.Contains(got.raw, once.to) {
		status, answer, p.once = once.status, once.body, nil
	}
	p.got = append(p.got, got)
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

// answerOnce is the answer to one transaction.
type answerOnce struct {
	to     string // what it holds
	status int
	body   string
}

func (p *Pushes) answerNext(to string, status int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.once = &answerOnce{to, status, body}
}

// fail refuses the first transaction that holds the text, and every one after it, until it is called with "".
func (p *Pushes) fail(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing, p.failed = text, false
}

// since are the requests from a number on.
func (p *Pushes) since(n int) []push {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got[n:len(p.got):len(p.got)]
}

// wait waits until the requests from a number on are as wanted.
func (p *Pushes) wait(ctx context.Context, since int, what string, wanted func([]push) bool) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if got := p.since(since); wanted(got) {
			return nil
		} else if ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w; there were %d requests: %s", what, ctx.Err(), len(got), describe(got))
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func describe(got []push) string {
	var out strings.Builder
	for _, g := range got {
		fmt.Fprintf(&out, "\n%s %s %.2000s", g.method, g.path, g.raw)
	}
	return out.String()
}

// transaction is the ID of one; empty when the request is another.
func (g *push) transaction() string {
	id, _ := strings.CutPrefix(g.path, "transactions/")
	if id == g.path {
		return ""
	}
	return id
}

// list is a field with a list of objects.
func (g *push) list(key string) []map[string]any {
	elements, _ := g.body[key].([]any)
	var out []map[string]any
	for _, e := range elements {
		object, _ := e.(map[string]any)
		out = append(out, object)
	}
	return out
}

// holds tells whether a request that was not refused has the text in it.
func holds(text string) func([]push) bool {
	return func(got []push) bool {
		for _, g := range got {
			if !g.refused && strings.Contains(g.raw, text) {
				return true
			}
		}
		return false
	}
}
