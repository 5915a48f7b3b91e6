package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trestle-bridge/trestle/store"
)

func TestProxy12_Server_GoodLink_ServesTheFileWithItsHeaders(t *testing.T) {
	s := newStage(t)
	resp := s.get(s.link(photo()))
	wantStatus(t, resp, 200)
	for name, value := range map[string]string{
		"Content-Type":                 "image/png",
		"Content-Length":               "708",
		"Content-Disposition":          `inline; filename="photo.png"`,
		"Cache-Control":                "private, max-age=3600",
		"Accept-Ranges":                "bytes",
		"X-Content-Type-Options":       "nosniff",
		"Content-Security-Policy":      "sandbox; default-src 'none'",
		"Cross-Origin-Resource-Policy": "cross-origin",
		"Referrer-Policy":              "no-referrer",
		"X-Robots-Tag":                 "noindex, nofollow, noarchive",
		"Set-Cookie":                   "",
		"Last-Modified":                "",
	} {
		wantHeader(t, resp, name, value)
	}
	if bodyOf(t, resp) != string(png) {
		t.Error("not the file")
	}
}

func TestProxy08_Server_Head_HasTheHeadersOfGet(t *testing.T) {
	s := newStage(t)
	s.hs.put("page", "text/html", "<html><script>alert(1)</script></html>")
	s.hs.put("lie", "image/png", "<html><script>alert(1)</script></html>")
	for _, m := range []Media{photo(), mediaOf("page", "text/html", "a.html"), mediaOf("lie", "image/png", "a.png"), mediaOf("photo", "", "x")} {
		link := s.link(m)
		get, head := s.get(link), s.do(http.MethodHead, link)
		wantStatus(t, head, get.StatusCode)
		for name := range get.Header {
			wantHeader(t, head, name, get.Header.Get(name))
		}
		if b := bodyOf(t, head); b != "" {
			t.Errorf("%d bytes of body", len(b))
		}
	}
	wantStatus(t, s.do(http.MethodHead, s.link(mediaOf("gone", "image/png", ""))), 404)
}

func TestProxy08_Server_HeadOfADownload_AsksTheHomeserverForHeadersOnly(t *testing.T) {
	s := newStage(t)
	s.hs.put("blob", "application/x-thing", "0123456789")
	resp := s.do(http.MethodHead, s.link(mediaOf("blob", "application/x-thing", "a.thing")))
	wantStatus(t, resp, 200)
	wantHeader(t, resp, "Content-Length", "10")
	if asked := s.hs.requests(); len(asked) != 1 || asked[0].Method != http.MethodHead {
		t.Errorf("%d requests", len(asked))
	}
}

func TestProxy15_Server_NothingOfTheReadersRequest_ReachesTheHomeserver(t *testing.T) {
	s := newStage(t)
	s.get(s.link(photo()), "Authorization", "Bearer mine", "Cookie", "a=b", "X-Forwarded-For", "1.2.3.4", "Range", "bytes=0-1", "Accept-Encoding", "gzip")
	asked := s.hs.requests()
	if len(asked) != 1 {
		t.Fatalf("%d requests", len(asked))
	}
	for name, want := range map[string]string{"Authorization": "Bearer " + testToken, "Cookie": "", "X-Forwarded-For": "", "Range": "", "Accept-Encoding": "identity"} {
		if got := asked[0].Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if asked[0].URL.RequestURI() != "/_matrix/client/v1/media/download/example.org/photo" {
		t.Errorf("asked for %s", asked[0].URL.RequestURI())
	}
}

func TestProxy08_Server_Methods(t *testing.T) {
	s := newStage(t)
	link := s.link(photo())
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"} {
		resp := s.do(method, link)
		wantStatus(t, resp, 405)
		wantHeader(t, resp, "Allow", "GET, HEAD")
	}
	resp := s.do(http.MethodOptions, link)
	wantStatus(t, resp, 204)
	wantHeader(t, resp, "Allow", "GET, HEAD")
	wantHeader(t, resp, "Access-Control-Allow-Methods", "GET, HEAD")
	if len(s.hs.requests()) != 0 {
		t.Error("the homeserver was asked")
	}
}

func TestProxy25_Server_PathsOfTheAppservice_Are404(t *testing.T) {
	s := newStage(t)
	for _, path := range []string{"/_matrix/app/v1/transactions/1", "/_matrix/app/v1/ping", "/_matrix/app/", "/", "/m", "/media", "/metrics", "//m/x", "/_matrix/client/v1/media/download/example.org/photo"} {
		for _, method := range []string{"GET", "PUT", "POST", "OPTIONS"} {
			wantStatus(t, s.do(method, path), 404)
		}
	}
}

func TestProxy12_Server_Robots_MayIndexNothing(t *testing.T) {
	s := newStage(t)
	resp := s.get("/robots.txt")
	wantStatus(t, resp, 200)
	if b := bodyOf(t, resp); b != "User-agent: *\nDisallow: /\n" {
		t.Error(b)
	}
	wantStatus(t, s.do("POST", "/robots.txt"), 405)
}

func TestProxy05_Server_BadLinks_HaveOneAnswerAndAskNobody(t *testing.T) {
	counted := &countedStore{}
	s := newStoredStage(t, func(c *ServerConfig) {
		counted.Store = c.Store.(*store.Store)
		c.Store = counted
	})
	s.server.stopWatching() // it asks by itself, and not because of a request
	s.server.watcher.Wait()
	s.server.keys.source = counted
	s.clock.Advance(time.Hour) // so that a reading of the keys would be due
	good := s.link(photo())
	counted.reads = 0
	forged := claims{purpose: purposeSelfContained, key: 1, server: "example.org", mediaID: "photo", disposition: inline}
	bad := []string{
		"/m/" + strings.Repeat("A", 34), good[:3] + "B" + good[4:], good[:20] + "/photo.png", "/m/", "/m/short/x", "/m/" + good[3:37] + "A/x",
		forged.path(mac{}, "x"), "/media/example.org/photo", "/media/", "/media/../../x?mac=1", "/media/a%2f..%2fb/photo?k=1", "/m/%2e%2e/%2e%2e",
	}
	want := bodies[404]
	for _, link := range bad {
		if link == good {
			continue
		}
		resp := s.get(link)
		wantStatus(t, resp, 404)
		wantHeader(t, resp, "Cache-Control", "no-store")
		if b := bodyOf(t, resp); b != want {
			t.Errorf("%s: %q", link, b)
		}
	}
	if n := counted.reads; n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	if n := len(s.hs.requests()); n != 0 {
		t.Errorf("the homeserver was asked %d times", n)
	}
	wantStatus(t, s.get(good), 200)
	if counted.reads == 0 || len(s.hs.requests()) != 1 {
		t.Error("the counters do not count")
	}
}

// countedStore counts what is asked.
type countedStore struct {
	*store.Store
	mu    sync.Mutex
	reads int
	fail  error
}

func (c *countedStore) count() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.fail
}

func (c *countedStore) Media(ctx context.Context, id int64) (*store.Media, error) {
	if err := c.count(); err != nil {
		return nil, err
	}
	return c.Store.Media(ctx, id)
}

func (c *countedStore) MediaKeys(ctx context.Context) ([]store.MediaKey, error) {
	if err := c.count(); err != nil {
		return nil, err
	}
	return c.Store.MediaKeys(ctx)
}

func TestProxy01_Server_ShortLink_ServesWhatItsRecordSays(t *testing.T) {
	s := newStoredStage(t)
	link := s.link(photo())
	if len(link) != len("/m/")+34+len("/photo.png") {
		t.Errorf("%d characters", len(link))
	}
	resp := s.get(link)
	wantStatus(t, resp, 200)
	wantHeader(t, resp, "Content-Disposition", `inline; filename="photo.png"`)
	if bodyOf(t, resp) != string(png) {
		t.Error("not the file")
	}
	wantStatus(t, s.get(link+"?utm_source=elsewhere"), 200)
}

func TestProxy16_Server_RecordOfEncryptedMedia_IsNotServedAsItIs(t *testing.T) {
	s := newStoredStage(t)
	record := store.Media{Server: "example.org", MediaID: "photo", Created: s.clock.Now(), Info: []byte(`{"v":"v2"}`)}
	if err := s.store.Commit(t.Context(), s.store.Epoch(), func(tx *store.Tx) error { return tx.AddMedia(&record) }); err != nil {
		t.Fatal(err)
	}
	link, err := s.signer.sign(&claims{purpose: purposeShort, record: record.ID}, "x")
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.get(strings.TrimPrefix(link, testPublic)), 501)
	if len(s.hs.requests()) != 0 {
		t.Error("the homeserver was asked")
	}
}

func TestProxy06_Server_StoreThatFails_Is503(t *testing.T) {
	failing := &countedStore{}
	s := newStoredStage(t, func(c *ServerConfig) {
		failing.Store = c.Store.(*store.Store)
		c.Store = failing
	})
	link := s.link(photo())
	failing.mu.Lock()
	failing.fail = errors.New("disk on fire")
	failing.mu.Unlock()
	resp := s.get(link)
	wantStatus(t, resp, 503)
	if b := bodyOf(t, resp); strings.Contains(b, "fire") {
		t.Errorf("the reader was told %q", b)
	}
}

func TestProxy24_Server_Answers_AreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := newStage(t, func(c *ServerConfig) { c.Metrics = reg })
	link := s.link(photo())
	s.get(link)
	s.get(link[:len(link)-2] + "AA")
	s.get("/nowhere")
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) { matrixError(w, 403, "M_FORBIDDEN") })
	s.get(link)
	got := gathered(t, reg)
	for name, want := range map[string]float64{
		"trestle_media_answers_total code=200":  1,
		"trestle_media_answers_total code=404":  2,
		"trestle_media_answers_total code=502":  1,
		"trestle_media_bytes_total":             708,
		"trestle_media_mac_failures_total":      1,
		"trestle_media_homeserver_denied_total": 1,
		"trestle_media_first_byte_seconds":      1,
		"trestle_media_in_flight":               0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: %v (there: %v), want %v", name, v, ok, want)
		}
	}
	if _, err := NewServer(ServerConfig{HomeserverURL: s.hs.URL, Token: "t", Keys: s.server.keys, Metrics: reg}); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

// gathered reads all metrics: counters and gauges by their value, histograms by their count.
func gathered(tb testing.TB, reg *prometheus.Registry) map[string]float64 {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestProxy24_Server_Log_HoldsNeitherMACNorTokenNorPath(t *testing.T) {
	for _, s := range []*stage{newStoredStage(t), newStage(t)} {
		link := s.link(photo())
		s.get(link)
		s.get(link[:len(link)-1])
		s.get(link, "Range", "bytes=99999-")
		s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://127.0.0.1:1/x?X-Amz-Signature=abcdef")
			w.WriteHeader(307)
		})
		s.get(link)
		s.hs.Close()
		s.get(link)
		log := s.log.String()
		if strings.Count(log, "\n") != 5 {
			t.Errorf("%d lines", strings.Count(log, "\n"))
		}
		c, m := parse(t, link)
		for _, secret := range []string{testToken, formatMAC(m), formatToken(c.key, c.record, m), link, "photo.png", "Amz"} {
			if strings.Contains(log, secret) {
				t.Errorf("%q is in the log:\n%s", secret, log)
			}
		}
	}
}

func TestServer_BadConfiguration_IsNamed(t *testing.T) {
	keys, err := StaticKeys(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	good := ServerConfig{HomeserverURL: "http://localhost:8008", Token: "t", Keys: keys}
	if _, err := NewServer(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*ServerConfig){
		"no homeserver":  func(c *ServerConfig) { c.HomeserverURL = "" },
		"no scheme":      func(c *ServerConfig) { c.HomeserverURL = "localhost:8008" },
		"password":       func(c *ServerConfig) { c.HomeserverURL = "http://u:secret@localhost" },
		"no token":       func(c *ServerConfig) { c.Token = "" },
		"two-line token": func(c *ServerConfig) { c.Token = "secret\r\nX: y" },
		"no keys":        func(c *ServerConfig) { c.Keys = nil },
		"negative limit": func(c *ServerConfig) { c.MaxSize = -1 },
	} {
		c := good
		spoil(&c)
		if _, err := NewServer(c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServe_EndOfContext_LetsStreamsFinishAndReturns(t *testing.T) {
	s := newStage(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write(bytes.Repeat([]byte("x"), 50000))
		w.(http.Flusher).Flush()
		<-goOn
		w.Write(bytes.Repeat([]byte("x"), 50000))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx, l) }()
	got := make(chan int, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + l.Addr().String() + s.link(photo()))
		close(begun)
		if err != nil {
			t.Error(err)
			got <- 0
			return
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got <- len(b)
	}()
	<-begun
	cancel()
	close(goOn)
	if n := <-got; n != 100000 {
		t.Errorf("%d bytes", n)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
