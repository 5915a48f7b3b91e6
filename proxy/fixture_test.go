package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testToken  = "as-token-that-must-not-travel"
	testPublic = "https://bridge.example"
)

// patience is for limits in time that are to be met in the middle of an answer, and by no means before its first bytes.
const patience = 2 * time.Second

var (
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	png      = []byte("\x89PNG\r\n\x1a\n" + strings.Repeat("pixels ", 100))
)

// homeserver gives out media as servers since MSC3916 do: for a token, on the authenticated endpoint, deaf to Range. handle, if set, answers instead.
type homeserver struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string]file // by "server/mediaID", thumbnails by "server/mediaID 320x240"
	asked  []*http.Request
	handle http.HandlerFunc
}

type file struct {
	mime string
	body []byte
}

func newHomeserver(tb testing.TB) *homeserver {
	h := &homeserver{files: map[string]file{"example.org/photo": {"image/png", png}}}
	h.Server = httptest.NewServer(h)
	tb.Cleanup(h.Close)
	return h
}

func (h *homeserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked = append(h.asked, r)
	handle := h.handle
	h.mu.Unlock()
	if handle != nil {
		handle(w, r)
		return
	}
	h.answer(w, r)
}

func (h *homeserver) answer(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+testToken {
		matrixError(w, http.StatusUnauthorized, "M_MISSING_TOKEN")
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, downloads.authenticated)
	if small, is := strings.CutPrefix(r.URL.Path, thumbnails.authenticated); is {
		name, ok = small+" "+r.URL.Query().Get("width")+"x"+r.URL.Query().Get("height"), true
	}
	h.mu.Lock()
	f, found := h.files[name]
	h.mu.Unlock()
	if !ok || !found {
		matrixError(w, http.StatusNotFound, "M_NOT_FOUND")
		return
	}
	w.Header().Set("Content-Type", f.mime)
	w.Header().Set("Content-Length", fmt.Sprint(len(f.body)))
	w.Header().Set("Set-Cookie", "upstream=1")
	w.Header().Set("ETag", "1")
	if r.Method != http.MethodHead {
		w.Write(f.body)
	}
}

func (h *homeserver) put(mediaID, mime, body string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files["example.org/"+mediaID] = file{mime, []byte(body)}
}

func (h *homeserver) answerWith(handle http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handle = handle
}

func (h *homeserver) requests() []*http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*http.Request(nil), h.asked...)
}

func matrixError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errcode":%q,"error":"SECRET-OF-THE-HOMESERVER"}`, code)
}

// clock is turned by tests.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_700_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

var noLimits = Rates{Rate{-1, -1}, Rate{-1, -1}, Rate{-1, -1}, Rate{-1, -1}}

// stage is a homeserver, a signer and a server in front of it.
type stage struct {
	tb     testing.TB
	hs     *homeserver
	clock  *clock
	store  *store.Store
	signer *Signer
	server *Server
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func testKey(id uint8) store.MediaKey {
	secret := make([]byte, secretSize)
	for i := range secret {
		secret[i] = id ^ byte(i)
	}
	return store.MediaKey{ID: id, Secret: secret, Created: time.Unix(1_600_000_000, 0)}
}

// newStage sets up without a store: links are self-contained.
func newStage(tb testing.TB, change ...func(*ServerConfig)) *stage {
	keys, err := StaticKeys(testKey(7))
	if err != nil {
		tb.Fatal(err)
	}
	return newStageWith(tb, nil, keys, newClock(), change...)
}

// newStoredStage sets up with a store: links are short.
func newStoredStage(tb testing.TB, change ...func(*ServerConfig)) *stage {
	clock := newClock()
	return newStageWith(tb, openStore(tb, clock), nil, clock, change...)
}

func openStore(tb testing.TB, clock *clock) *store.Store {
	st, err := store.Open(context.Background(), "sqlite:"+tb.TempDir()+"/bridge.db", store.Options{Log: zerolog.Nop(), Now: clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	return st
}

func newStageWith(tb testing.TB, st *store.Store, keys *KeyRing, clock *clock, change ...func(*ServerConfig)) *stage {
	s := &stage{tb: tb, hs: newHomeserver(tb), clock: clock, store: st, log: &lockedBuffer{}}
	var err error
	var links Links // not a nil *store.Store in it
	if st != nil {
		links = st
	}
	s.signer, err = NewSigner(context.Background(), SignerConfig{PublicURL: testPublic, Store: links, Keys: keys, Now: clock.Now, Decrypter: crypto.Attachments{}})
	if err != nil {
		tb.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	tb.Cleanup(transport.CloseIdleConnections)
	cfg := ServerConfig{
		HomeserverURL: s.hs.URL, Token: testToken, Store: links, Keys: s.signer.Keys(),
		HTTPClient: &http.Client{Transport: transport}, Log: zerolog.New(s.log), Now: clock.Now, QueueWait: -1,
		Rates: noLimits,
	}
	for _, c := range change {
		c(&cfg)
	}
	if s.server, err = NewServer(cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.server.upstream.redirect.CloseIdleConnections)
	server := s.server
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func mediaOf(mediaID, mime, name string) Media {
	return Media{
		URI: id.ContentURI{Homeserver: "example.org", FileID: mediaID}, MIME: mime, Name: name,
		Room: "!room:example.org", Event: "$event",
	}
}

func photo() Media { return mediaOf("photo", "image/png", "photo.png") }

// link makes a link of the form that the stage has, without its host.
func (s *stage) link(m Media) string {
	s.tb.Helper()
	var link string
	var err error
	if s.store != nil {
		link, err = s.signer.Short(context.Background(), m)
	} else {
		link, err = s.signer.SelfContained(m)
	}
	if err != nil {
		s.tb.Fatal(err)
	}
	return strings.TrimPrefix(link, testPublic)
}

// do sends a request to the server, without a network. header holds pairs.
func (s *stage) do(method, link string, header ...string) *http.Response {
	s.tb.Helper()
	r := httptest.NewRequest(method, link, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.server.ServeHTTP(w, r)
	return w.Result()
}

func (s *stage) get(link string, header ...string) *http.Response {
	s.tb.Helper()
	return s.do(http.MethodGet, link, header...)
}

// listen puts the server on a real listener and returns its address.
func (s *stage) listen() string {
	front := httptest.NewServer(s.server)
	s.tb.Cleanup(front.Close)
	return front.URL
}

func bodyOf(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func wantStatus(tb testing.TB, resp *http.Response, status int) {
	tb.Helper()
	if resp.StatusCode != status {
		tb.Errorf("status %d, want %d", resp.StatusCode, status)
	}
}

func wantHeader(tb testing.TB, resp *http.Response, name, value string) {
	tb.Helper()
	if got := resp.Header.Get(name); got != value {
		tb.Errorf("%s: %q, want %q", name, got, value)
	}
}

// parse takes a link apart that is known to be good.
func parse(tb testing.TB, link string) (claims, mac) {
	tb.Helper()
	u, err := url.Parse(link)
	if err != nil {
		tb.Fatal(err)
	}
	c, m, ok := parseLink(u.EscapedPath(), u.RawQuery)
	if !ok {
		tb.Fatalf("cannot read the link")
	}
	return c, m
}
