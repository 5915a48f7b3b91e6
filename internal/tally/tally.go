// Package tally counts what a client of a homeserver asks of it, from outside of the client, and finds what it asks again
// sooner than the homeserver had said. It is for tests that hold a bridge to the number of its requests.
//
//	counted := tally.Over(http.DefaultTransport)
//	bridge := start(&http.Client{Transport: counted})
//	…
//	fmt.Println(counted.Counts()) // map[POST join:1000 POST register:1000 PUT devices:1000 PUT send:1000]
//
// It has no goroutines.
package tally

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Transport passes requests on, and counts them.
type Transport struct {
	base http.RoundTripper

	mu      sync.Mutex
	counts  map[string]int
	refused map[string]int
	blind   []string
	until   map[string]time.Time // by what was refused: before then it is blind to ask again
}

// Over makes a transport on top of another.
func Over(base http.RoundTripper) *Transport {
	t := &Transport{base: base}
	t.Reset()
	return t
}

// Reset forgets what was counted.
func (t *Transport) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts, t.refused, t.blind, t.until = map[string]int{}, map[string]int{}, nil, map[string]time.Time{}
}

// Counts gives how often each endpoint was asked, refusals included.
func (t *Transport) Counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// Refused gives how often each endpoint answered 429.
func (t *Transport) Refused() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.refused)
}

// Blind names the requests that were made although a 429 was known that asked to wait longer: for the same user and
// endpoint, and for registrations and devices, which a homeserver counts by address, for any user.
func (t *Transport) Blind() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.blind...)
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	what, user := endpoint(req), req.URL.Query().Get("user_id")
	key := what + " as " + user
	switch what {
	case "POST register", "POST login", "PUT devices":
		key = "logins"
	}
	t.mu.Lock()
	t.counts[what]++
	if early := time.Until(t.until[key]); early > 0 {
		t.blind = append(t.blind, fmt.Sprintf("%s as %s, %v too early", what, user, early))
	}
	t.mu.Unlock()
	resp, err := t.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var limit struct {
		MS int64 `json:"retry_after_ms"`
	}
	_ = json.Unmarshal(body, &limit) // a 429 that does not say how long is only counted
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[what]++
	t.until[key] = time.Now().Add(time.Duration(limit.MS) * time.Millisecond)
	return resp, nil
}

func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// endpoint names what a request is for: its method and the word of the path that says what is done.
func endpoint(req *http.Request) string {
	parts := strings.Split(strings.TrimPrefix(req.URL.EscapedPath(), "/_matrix/"), "/")
	word := parts[len(parts)-1] // such as versions, of a path without a version
	if len(parts) > 2 {
		word = parts[2]
	}
	if word == "rooms" && len(parts) > 4 {
		word = parts[4]
	}
	if parts[0] == "federation" {
		word = "federation version"
	}
	if word == "account" {
		word = parts[len(parts)-1]
	}
	return req.Method + " " + word
}
