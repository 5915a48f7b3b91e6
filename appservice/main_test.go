package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/store"
)

func TestMain(m *testing.M) {
	runVictim()
	if uri := os.Getenv(childVariable); uri != "" {
		if err := runChild(uri); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	testHSToken = "hs-secret-token"
	testASToken = "as-secret-token"
	testServer  = "hs.test"
	testRoom    = "!room:hs.test"
)

func testRegistration() *Registration {
	return &Registration{
		ID: "irc", URL: "http://localhost:1", ASToken: testASToken, HSToken: testHSToken, SenderLocalpart: "ircbot",
		Namespaces: Namespaces{
			Users: []Namespace{{true, `^@irc_.*:hs\.test$`}}, Aliases: []Namespace{{true, `^#irc_.*:hs\.test$`}},
		},
		ReceiveEphemeral: true, MSC3202: true, MSC4190: true, DeviceManagement: true,
	}
}

// recorder is a handler that writes down what it is given.
type recorder struct {
	mu         sync.Mutex
	changed    *sync.Cond
	events     []*Event
	ephemerals []*Ephemeral
	buried     []error
	handle     func(ctx context.Context, ev *Event) ([]Effect, error) // set before what it is for comes in, or by crashTo
	ephemeral  func(ev *Ephemeral)
}

func newRecorder() *recorder {
	r := &recorder{}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) HandleEvent(ctx context.Context, ev *Event) (effects []Effect, err error) {
	if r.handle != nil {
		effects, err = r.handle(ctx, ev)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, ev)
	r.changed.Broadcast()
	return effects, err
}

func (r *recorder) HandleEphemeral(_ context.Context, ev *Ephemeral) {
	if r.ephemeral != nil {
		r.ephemeral(ev)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ephemerals = append(r.ephemerals, ev)
	r.changed.Broadcast()
}

func (r *recorder) Buried(_ context.Context, _ *Event, cause error) []Effect {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buried = append(r.buried, cause)
	return nil
}

// waitFor blocks until ok, which is called with the lock held; the test's own deadline ends it otherwise.
func (r *recorder) waitFor(ok func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok() {
		r.changed.Wait()
	}
}

func (r *recorder) waitEvents(n int) []*Event {
	r.waitFor(func() bool { return len(r.events) >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Event(nil), r.events...)
}

func (r *recorder) ids() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for _, ev := range r.events {
		ids = append(ids, string(ev.ID))
	}
	return strings.Join(ids, " ")
}

func openStore(t testing.TB, path string, now func() time.Time) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), "sqlite:"+path, store.Options{Log: zerolog.Nop(), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type fixture struct {
	t     testing.TB
	as    *AppService
	rec   *recorder
	store *store.Store
	path  string
	hs    *httptest.Server
	now   func() time.Time // of the stores after a crash; nil: the real time
	// prepare, when set, is called with every appservice before its start.
	prepare func(*AppService)
}

// newFixture makes a started appservice with a store of its own and a homeserver that answers with hs (404 when nil).
func newFixture(t testing.TB, hs http.Handler, change ...func(*Config)) *fixture {
	t.Helper()
	if hs == nil {
		hs = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answerError(w, 404, codeUnrecognized, "nothing here") })
	}
	f := &fixture{t: t, rec: newRecorder(), path: filepath.Join(t.TempDir(), "test.db"), hs: httptest.NewServer(hs)}
	t.Cleanup(f.hs.Close)
	f.store = openStore(t, f.path, nil)
	t.Cleanup(func() { _ = f.store.Close() })
	f.start(change...)
	return f
}

func (f *fixture) start(change ...func(*Config)) {
	f.t.Helper()
	cfg := Config{
		Registration: testRegistration(), HomeserverURL: f.hs.URL, ServerName: testServer,
		Store: f.store, Handler: f.rec, Log: zerolog.Nop(), Workers: 4,
	}
	for _, c := range change {
		c(&cfg)
	}
	as, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.as = as
	as.replay.pause = 0
	if f.prepare != nil {
		f.prepare(as)
	}
	if err := as.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(f.stop)
}

func (f *fixture) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.as.Stop(ctx); err != nil {
		f.t.Error(err)
	}
}

// crash gives a new appservice the store as it is now, as after a kill: the old one writes nothing more.
func (f *fixture) crash(change ...func(*Config)) {
	f.t.Helper()
	f.crashTo(f.rec.handle, change...)
}

// crashTo is crash after which another handler is there. The old one is called no more when it is taken away.
func (f *fixture) crashTo(handle func(context.Context, *Event) ([]Effect, error), change ...func(*Config)) {
	f.t.Helper()
	f.as.commitEnd()
	f.as.runCancel()
	f.stop()
	if err := f.store.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.store = openStore(f.t, f.path, f.now)
	s := f.store
	f.t.Cleanup(func() { _ = s.Close() })
	f.rec.mu.Lock()
	f.rec.events = nil
	f.rec.mu.Unlock()
	f.rec.handle = handle
	f.start(change...)
}

// put sends a transaction and returns status and body.
func (f *fixture) put(txnID, body string) (int, string) {
	return f.do(http.MethodPut, "/_matrix/app/v1/transactions/"+txnID, body, "Bearer "+testHSToken)
}

func (f *fixture) do(method, path, body, auth string) (int, string) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	w := httptest.NewRecorder()
	f.as.ServeHTTP(w, req)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func (f *fixture) mustPut(txnID, body string) {
	f.t.Helper()
	if code, answer := f.put(txnID, body); code != 200 || answer != "{}" {
		f.t.Fatalf("transaction %s got %d %s", txnID, code, answer)
	}
}

// idle waits until no event waits any more.
func (f *fixture) idle() {
	for {
		if n, _ := f.as.lanes.Len(); n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fixture) deadLetters() []store.DeadLetter {
	f.t.Helper()
	list, err := f.store.DeadLetters(context.Background(), store.LetterQuery{Bodies: true})
	if err != nil {
		f.t.Fatal(err)
	}
	return list
}

func message(eventID string) string { return messageIn(testRoom, eventID) }

func messageIn(room, eventID string) string {
	return fmt.Sprintf(`{"age":151,"content":{"body":"three","msgtype":"m.text"},"event_id":%q,"origin_server_ts":1795279674450,"room_id":%q,"sender":"@bob:hs.test","type":"m.room.message","unsigned":{"age":151},"user_id":"@bob:hs.test"}`, eventID, room)
}

func events(list ...string) string { return `{"events":[` + strings.Join(list, ",") + `]}` }

var errTest = errors.New("test")
