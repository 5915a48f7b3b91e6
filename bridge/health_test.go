package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// quiet is a network, and its session, on which nothing happens.
type quiet struct{}

func (quiet) Info() Info                                             { return Info{ID: "quiet", Name: "Quiet", Command: "!quiet"} }
func (quiet) Open(context.Context, *Login, Sink) (Session, error)    { return quiet{}, nil }
func (quiet) Send(context.Context, *Message) (Sent, error)           { return Sent{}, nil }
func (quiet) Close(context.Context) error                            { return nil }
func (quiet) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

// blocked is a handler that ends when it is let.
type blocked struct {
	quiet
	gate chan struct{}
}

func (h blocked) HandleEvent(ctx context.Context, _ *appservice.Event) ([]appservice.Effect, error) {
	select {
	case <-h.gate:
	case <-ctx.Done():
	}
	return nil, nil
}

// watched is a bridge of whose parts a test decides which are there. The homeserver answers pings with ping.
type watched struct {
	*Bridge
	mux *http.ServeMux
}

func watch(t *testing.T, ping http.HandlerFunc) *watched {
	t.Helper()
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/ping") {
			ping(w, r)
			return
		}
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(hs.Close)
	b, err := New(DefaultConfig(quiet{}.Info()), quiet{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	b.running = ctx
	b.store, err = store.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "test.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.as, err = appservice.New(appservice.Config{
		Registration:  &appservice.Registration{ID: "quiet", URL: "http://localhost:1", ASToken: "as", HSToken: "hs", SenderLocalpart: "bot"},
		HomeserverURL: hs.URL, ServerName: "hs.test", Store: b.store, Handler: blocked{gate: make(chan struct{})}, BacklogLimit: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if err := b.as.Stop(ended); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		b.end(stop)
		_ = b.store.Close()
	})
	b.writeTest.patience = time.Hour // the machine may be busy
	w := &watched{b, http.NewServeMux()}
	b.serveHealth(w.mux)
	return w
}

// start makes everything well, except perhaps for the ping.
func (w *watched) start(t *testing.T) {
	t.Helper()
	if err := w.as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var s Session = quiet{}
	w.sessions.Store(&s)
	close(w.ready)
	for w.as.Reached() != nil && w.as.Reached().Error() == "the homeserver was not asked yet whether it reaches the bridge" {
		time.Sleep(time.Millisecond)
	}
}

// put sends a transaction with so many events.
func (w *watched) put(id string, rooms ...string) int {
	var events []string
	for _, room := range rooms {
		events = append(events, `{"type":"m.room.message","event_id":"$`+id+room+`","room_id":"!`+room+`","sender":"@a:hs.test","content":{}}`)
	}
	r := httptest.NewRequest("PUT", "/_matrix/app/v1/transactions/"+id, strings.NewReader(`{"events":[`+strings.Join(events, ",")+`]}`))
	r.Header.Set("Authorization", "Bearer hs")
	answer := httptest.NewRecorder()
	w.as.ServeHTTP(answer, r)
	return answer.Code
}

// look gives the status, and the checks that are not well.
func (w *watched) look(t *testing.T, path string) (status int, bad map[string]healthCheck) {
	t.Helper()
	return w.lookWithin(t, t.Context(), path)
}

func (w *watched) lookWithin(t *testing.T, ctx context.Context, path string) (status int, bad map[string]healthCheck) {
	t.Helper()
	answer := httptest.NewRecorder()
	w.mux.ServeHTTP(answer, httptest.NewRequest("GET", path, nil).WithContext(ctx))
	var report healthReport
	if err := json.Unmarshal(answer.Body.Bytes(), &report); err != nil {
		t.Fatalf("%s: %v: %s", path, err, answer.Body)
	}
	bad = map[string]healthCheck{}
	for _, c := range report.Checks {
		if c.Detail == "" {
			t.Errorf("%s: %s has nothing to say", path, c.Name)
		}
		if !c.OK {
			bad[c.Name] = c
		}
	}
	if report.OK != (len(bad) == 0) || report.OK != (answer.Code == http.StatusOK) {
		t.Errorf("%s: %d %s", path, answer.Code, answer.Body)
	}
	return answer.Code, bad
}

func (w *watched) expect(t *testing.T, path string, names ...string) map[string]healthCheck {
	t.Helper()
	_, bad := w.look(t, path)
	for _, name := range names {
		if _, found := bad[name]; !found {
			t.Errorf("%s: %s is well", path, name)
		}
	}
	if len(bad) != len(names) {
		t.Errorf("%s: not well: %v, want %v", path, bad, names)
	}
	return bad
}

func noPing(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write([]byte(`{"errcode":"M_UNRECOGNIZED","error":"no ping here"}`))
}

func TestReadyz_WhileStarting_SaysWhatItWaitsFor(t *testing.T) {
	w := watch(t, noPing)
	w.expect(t, "/readyz", "running", "homeserver", "network")
	w.expect(t, "/healthz")
}

func TestReadyz_HomeserverWithoutPing_IsTolerated(t *testing.T) {
	w := watch(t, noPing)
	w.start(t)
	w.expect(t, "/readyz")
	w.draining.Store(true)
	w.expect(t, "/readyz", "running")
}

func TestReadyz_HomeserverThatDoesNotReachTheBridge_IsSaidWithTheMend(t *testing.T) {
	w := watch(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte(`{"errcode":"M_CONNECTION_FAILED","error":"refused"}`))
	})
	w.start(t)
	bad := w.expect(t, "/readyz", "homeserver")
	if c := bad["homeserver"]; !strings.Contains(c.Detail, "write in the registration's url") || c.Mend == "" {
		t.Errorf("%+v", c)
	}
	w.expect(t, "/healthz")
}

func TestReadyz_NetworkThatIsAway_IsTolerated(t *testing.T) {
	w := watch(t, noPing)
	w.start(t)
	w.setOffline(true)
	since := w.offlineSince()
	w.setOffline(true)
	if w.offlineSince() != since {
		t.Error("being away began anew")
	}
	w.expect(t, "/readyz")
	if c := w.checkSession(); !strings.Contains(c.Detail, "offline") {
		t.Errorf("%+v", c)
	}
	w.setOffline(false)
	if c := w.checkSession(); strings.Contains(c.Detail, "offline") {
		t.Errorf("%+v", c)
	}
}

func TestReadyz_BacklogAtItsLimit_IsNotWell(t *testing.T) {
	w := watch(t, noPing)
	w.start(t)
	if code := w.put("1", "a", "b"); code != 200 {
		t.Fatal(code)
	}
	bad := w.expect(t, "/readyz", "backlog")
	if c := bad["backlog"]; c.Detail != "2 events wait, of at most 2" || !strings.Contains(c.Mend, "appservice.backlog_limit") {
		t.Errorf("%+v", c)
	}
	w.expect(t, "/healthz")
}

func TestReadyz_StoreThatWasNotWrittenToLately_IsTried(t *testing.T) {
	w := watch(t, noPing)
	w.start(t)
	w.now = func() time.Time { return time.Now().Add(2 * writtenRecently) }
	w.expect(t, "/readyz")
	if _, err := w.store.Setting(t.Context(), healthKey); err != nil {
		t.Error("nothing was written:", err)
	}
	// A disk that does not answer: a job that holds the one writer.
	gate, held := make(chan struct{}), make(chan struct{})
	go func() {
		_ = w.store.Commit(context.Background(), w.store.Epoch(), func(*store.Tx) error { close(held); <-gate; return nil })
	}()
	<-held
	impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for range 3 { // and only one is tried at a time
		if status, bad := w.lookWithin(t, impatient, "/readyz"); status != 503 || bad["store"].Mend == "" || len(bad) != 1 {
			t.Errorf("%d %+v", status, bad)
		}
	}
	close(gate)
	w.expect(t, "/readyz")
}

func TestTrial_WhileOneIsUnderWay_NoOtherBegins(t *testing.T) {
	var tries atomic.Int32
	gate, ended := make(chan struct{}), make(chan struct{})
	spawn := func(f func()) bool { go f(); return true }
	try := func() error { tries.Add(1); <-gate; return errStopping }
	slow := &trial{patience: time.Nanosecond}
	for range 3 {
		if err := slow.run(t.Context(), spawn, try); err == nil || !strings.Contains(err.Error(), "has not ended") {
			t.Error(err)
		}
	}
	slow.mu.Lock()
	slow.patience = time.Hour
	slow.mu.Unlock()
	go func() {
		defer close(ended)
		if err := slow.run(t.Context(), spawn, try); !errors.Is(err, errStopping) {
			t.Error(err)
		}
	}()
	close(gate)
	<-ended
	if n := tries.Load(); n > 2 { // the last may have come after the first had ended
		t.Errorf("%d at once", n)
	}
	if err := slow.run(t.Context(), func(func()) bool { return false }, try); !errors.Is(err, errStopping) {
		t.Error(err)
	}
}

func TestHealthz_StoreLost_IsWorthARestart(t *testing.T) {
	w := watch(t, noPing)
	w.start(t)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	if code := w.put("1", "a"); code != 503 {
		t.Error(code)
	}
	<-w.as.Lost()
	w.expect(t, "/healthz", "store")
	bad := w.expect(t, "/readyz", "store")
	if c := bad["store"]; !strings.Contains(c.Mend, "start the bridge again") {
		t.Errorf("%+v", c)
	}
}

func TestHealth_OtherMethodsAndPaths_AreRefused(t *testing.T) {
	w := watch(t, noPing)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"HEAD", "/healthz", 200}, {"POST", "/healthz", 405}, {"PUT", "/readyz", 405}, {"GET", "/", 404}, {"GET", "/healthz/x", 404},
	} {
		answer := httptest.NewRecorder()
		w.mux.ServeHTTP(answer, httptest.NewRequest(c.method, c.path, nil))
		if answer.Code != c.status {
			t.Errorf("%s %s: %d", c.method, c.path, answer.Code)
		}
	}
}
