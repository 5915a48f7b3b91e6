package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

func TestServer_GoodLink_ServesTheFileWithItsHeaders(t *testing.T) {
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

func TestServer_Head_HasTheHeadersOfGet(t *testing.T) {
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

func TestServer_HeadOfADownload_AsksTheHomeserverForHeadersOnly(t *testing.T) {
	s := newStage(t)
	s.hs.put("blob", "application/x-thing", "0123456789")
	resp := s.do(http.MethodHead, s.link(mediaOf("blob", "application/x-thing", "a.thing")))
	wantStatus(t, resp, 200)
	wantHeader(t, resp, "Content-Length", "10")
	if asked := s.hs.requests(); len(asked) != 1 || asked[0].Method != http.MethodHead {
		t.Errorf("%d requests", len(asked))
	}
}

func TestServer_NothingOfTheReadersRequest_ReachesTheHomeserver(t *testing.T) {
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

func TestServer_Methods(t *testing.T) {
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

func TestServer_PathsOfTheAppservice_Are404(t *testing.T) {
	s := newStage(t)
	for _, path := range []string{"/_matrix/app/v1/transactions/1", "/_matrix/app/v1/ping", "/_matrix/app/", "/", "/m", "/media", "/metrics", "//m/x", "/_matrix/client/v1/media/download/example.org/photo"} {
		for _, method := range []string{"GET", "PUT", "POST", "OPTIONS"} {
			wantStatus(t, s.do(method, path), 404)
		}
	}
}

func TestServer_Robots_MayIndexNothing(t *testing.T) {
	s := newStage(t)
	resp := s.get("/robots.txt")
	wantStatus(t, resp, 200)
	if b := bodyOf(t, resp); b != "User-agent: *\nDisallow: /\n" {
		t.Error(b)
	}
	wantStatus(t, s.do("POST", "/robots.txt"), 405)
}

func TestServer_BadLinks_HaveOneAnswerAndAskNobody(t *testing.T) {
	s := newStoredStage(t)
	counted := &countedStore{Store: s.store}
	s.server.records, s.server.keys.source = counted, counted
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

func TestServer_ShortLink_ServesWhatItsRecordSays(t *testing.T) {
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

func TestServer_RevokedEvent_Is410AtOnce(t *testing.T) {
	s := newStoredStage(t)
	link := s.link(photo())
	other := photo()
	other.Event = "$other"
	kept := s.link(other)
	wantStatus(t, s.get(link), 200)
	err := s.store.Commit(t.Context(), s.store.Epoch(), func(tx *store.Tx) error {
		n, err := tx.RevokeMedia("!room:example.org", "$event")
		if n != 1 {
			t.Errorf("%d links were revoked", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := len(s.hs.requests())
	wantStatus(t, s.get(link), 410)
	if len(s.hs.requests()) != before {
		t.Error("the homeserver was asked for a revoked file")
	}
	wantStatus(t, s.get(kept), 200)
}

func TestServer_Expiry_EndsBothForms(t *testing.T) {
	for name, s := range map[string]*stage{"short": newStoredStage(t), "self-contained": newStage(t)} {
		m := photo()
		m.Expires = s.clock.Now().Add(time.Minute)
		link := s.link(m)
		resp := s.get(link)
		wantStatus(t, resp, 200)
		wantHeader(t, resp, "Cache-Control", "private, max-age=60")
		s.clock.Advance(59 * time.Second)
		wantHeader(t, s.get(link), "Cache-Control", "private, max-age=1")
		s.clock.Advance(time.Second)
		resp = s.get(link)
		wantStatus(t, resp, 410)
		wantHeader(t, resp, "Cache-Control", "no-store")
		if len(s.hs.requests()) != 2 {
			t.Errorf("%s: the homeserver was asked %d times", name, len(s.hs.requests()))
		}
	}
}

func TestServer_Lifetime_IsThirtyDaysUnlessSaid(t *testing.T) {
	s := newStage(t)
	c, _ := parse(t, s.link(photo()))
	if got := time.Unix(c.expires, 0).Sub(s.clock.Now()); got != 30*24*time.Hour {
		t.Errorf("%v", got)
	}
	s.signer.lifetime = -1
	if c, _ := parse(t, s.link(photo())); c.expires != 0 {
		t.Error("a link for ever has an end")
	}
	wantHeader(t, s.get(s.link(photo())), "Cache-Control", "private, max-age=3600")
}

func TestServer_RecordOfEncryptedMedia_IsNotServedAsItIs(t *testing.T) {
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

func TestServer_RecordThatIsGone_Is410(t *testing.T) {
	s := newStoredStage(t)
	link, err := s.signer.sign(&claims{purpose: purposeShort, record: 99999}, "x")
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.get(strings.TrimPrefix(link, testPublic)), 410)
}

func TestServer_StoreThatFails_Is503(t *testing.T) {
	s := newStoredStage(t)
	link := s.link(photo())
	s.server.records = &countedStore{Store: s.store, fail: errors.New("disk on fire")}
	resp := s.get(link)
	wantStatus(t, resp, 503)
	if b := bodyOf(t, resp); strings.Contains(b, "fire") {
		t.Errorf("the reader was told %q", b)
	}
}

func TestServer_SelfContainedLinkOfARevokedEvent_Is410(t *testing.T) {
	var revoked bool
	var asked int
	s := newStage(t, func(c *ServerConfig) {
		c.Revoked = func(_ context.Context, room id.RoomID, event id.EventID) (bool, error) {
			asked++
			if room != "!room:example.org" || event != "$event" {
				t.Errorf("asked about %s in %s", event, room)
			}
			return revoked, nil
		}
	})
	link := s.link(photo())
	wantStatus(t, s.get(link), 200)
	revoked = true
	wantStatus(t, s.get(link), 410)
	asked = 0
	s.get(strings.Replace(link, "event", "other", 1))
	if asked != 0 {
		t.Error("asked before the MAC held")
	}
}

func TestServer_Answers_AreCounted(t *testing.T) {
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

func TestServer_Log_HoldsNeitherMACNorTokenNorPath(t *testing.T) {
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

func TestLimits_OneReaderOverItsShare_Is429AndOthersAreServed(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.StreamsPerIP = 2; c.Streams = 3 })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2") // httptest's reader is 192.0.2.1
	ctx := t.Context()
	for range 2 {
		if !s.server.gate.enter(ctx, a) {
			t.Fatal("refused within the limit")
		}
	}
	link := s.link(photo())
	resp := s.get(link)
	wantStatus(t, resp, 429)
	wantHeader(t, resp, "Retry-After", "5")
	if len(s.hs.requests()) != 0 {
		t.Error("the homeserver was asked")
	}
	if !s.server.gate.enter(ctx, b) {
		t.Error("another reader was refused")
	}
	s.server.gate.leave(a)
	wantStatus(t, s.get(link), 200)
	if !s.server.gate.enter(ctx, b) {
		t.Error("the place was not given back")
	}
	wantStatus(t, s.get(link), 429) // three are served in all
	for _, who := range []netip.Addr{a, b, b} {
		s.server.gate.leave(who)
	}
	if len(s.server.gate.readers) != 0 || len(s.server.gate.places) != 0 {
		t.Error("the gate remembers readers who have gone")
	}
}

func TestLimits_WaitingRequest_GetsThePlaceThatBecomesFree(t *testing.T) {
	g := newGate(1, 5, time.Minute)
	who := netip.MustParseAddr("192.0.2.1")
	g.enter(t.Context(), who)
	entered := make(chan bool)
	go func() { entered <- g.enter(t.Context(), who) }()
	g.leave(who)
	if !<-entered {
		t.Error("refused")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if g.enter(ended, who) {
		t.Error("a reader who has gone was let in")
	}
	g.leave(who)
	if len(g.readers) != 0 || g.waiting != 0 {
		t.Errorf("%d readers, %d waiting", len(g.readers), g.waiting)
	}
}

func TestReader_BehindTrustedProxies_IsTheLastAddressThatIsNotTheirs(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"198.51.100.1:5", "", "198.51.100.1"},
		{"198.51.100.1:5", "1.1.1.1", "198.51.100.1"},
		{"10.0.0.1:5", "1.1.1.1", "1.1.1.1"},
		{"10.0.0.1:5", "9.9.9.9, 1.1.1.1, 10.0.0.2", "1.1.1.1"},
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "9.9.9.9, nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "", "10.0.0.1"},
		{"[2001:db8:1:2:3::4]:5", "", "2001:db8:1:2::"},
		{"[::ffff:198.51.100.1]:5", "", "198.51.100.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := readerOf(r, trusted).String(); got != c.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}
