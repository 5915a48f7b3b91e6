package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Faults is the bridge's way to Synapse, on which a test can have something happen to chosen media. All else passes.
type Faults struct {
	Port int
	URL  string

	pass *httputil.ReverseProxy

	mu     sync.Mutex
	faults map[string]http.HandlerFunc // by media ID
	asked  map[string][]string         // by media ID: method and path of each request, and whether it had a token
}

// StartFaults starts the way to an address. It ends with the test.
func StartFaults(tb testing.TB, to string) *Faults {
	tb.Helper()
	f := &Faults{
		pass:   httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to}),
		faults: map[string]http.HandlerFunc{}, asked: map[string][]string{},
	}
	transport := &http.Transport{DisableCompression: true}
	f.pass.Transport = transport
	// A server that is away answers nothing, and no more does the way to it.
	f.pass.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := httptest.NewServer(f)
	tb.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	f.URL = server.URL
	f.Port = server.Listener.Addr().(*net.TCPAddr).Port
	return f
}

// Set has a handler answer for Synapse wherever a media ID is asked for.
func (f *Faults) Set(mediaID string, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[mediaID] = answer
}

// Pass lets a request through to Synapse.
func (f *Faults) Pass(w http.ResponseWriter, r *http.Request) { f.pass.ServeHTTP(w, r) }

// Asked is what was asked for a media ID.
func (f *Faults) Asked(mediaID string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked[mediaID]...)
}

func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := http.HandlerFunc(f.Pass)
	if strings.Contains(r.URL.Path, "/download/") {
		mediaID := path.Base(r.URL.Path)
		said := r.Method + " " + path.Dir(path.Dir(r.URL.Path))
		if r.Header.Get("Authorization") != "" {
			said += " with a token"
		}
		f.mu.Lock()
		f.asked[mediaID] = append(f.asked[mediaID], said)
		if fault := f.faults[mediaID]; fault != nil {
			answer = fault
		}
		f.mu.Unlock()
	}
	answer(w, r)
}

// status answers with a Matrix error.
func status(code int, errcode string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(`{"errcode":"` + errcode + `","error":"of the homeserver"}`))
	}
}

// lie sends data under a length that is not its own.
func lie(data []byte, length int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, out, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer conn.Close()
		_, _ = out.WriteString("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n")
		_, _ = out.Write(data)
		_ = out.Flush()
	}
}
