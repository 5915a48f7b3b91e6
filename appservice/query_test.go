package appservice

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"
)

// querier is a handler that is asked; what it was asked is written down.
type querier struct {
	*recorder
	mu    sync.Mutex
	asked []string
	user  func(ctx context.Context, user id.UserID) (bool, error)
	alias func(ctx context.Context, alias id.RoomAlias) (bool, error)
}

func (q *querier) note(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = append(q.asked, name)
}

func (q *querier) all() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return strings.Join(q.asked, " ")
}

func (q *querier) QueryUser(ctx context.Context, user id.UserID) (bool, error) {
	q.note(string(user))
	return q.user(ctx, user)
}

func (q *querier) QueryAlias(ctx context.Context, alias id.RoomAlias) (bool, error) {
	q.note(string(alias))
	return q.alias(ctx, alias)
}

func newQuerier(user func(ctx context.Context, user id.UserID) (bool, error)) *querier {
	return &querier{recorder: newRecorder(), user: user, alias: func(ctx context.Context, alias id.RoomAlias) (bool, error) {
		return user(ctx, id.UserID(alias))
	}}
}

func (q *querier) use(c *Config) { c.Handler = q }

// get asks as the homeserver does.
func (f *fixture) get(path string) (int, string) {
	return f.do("GET", "/_matrix/app/v1/"+path, "", "Bearer "+testHSToken)
}

const (
	askUser  = "users/%40irc_a%3Ahs.test"
	askAlias = "rooms/%23irc_a%3Ahs.test"
)

func TestQueries_EncodedNames_ReachTheHandlerDecoded(t *testing.T) {
	exists := map[string]bool{"@irc_a:hs.test": true, "#irc_a/b:hs.test": true, "#irc_#x:hs.test": true, "#irc_é:hs.test": true, "#irc_%2f:hs.test": true}
	q := newQuerier(func(_ context.Context, user id.UserID) (bool, error) { return exists[string(user)], nil })
	f := newFixture(t, newFakeHS(t), q.use)
	for _, c := range []struct {
		path   string
		status int
		asked  string
	}{
		{"users/%40irc_a%3Ahs.test", 200, "@irc_a:hs.test"},
		{"users/@irc_b:hs.test", 404, "@irc_b:hs.test"},
		{"users/%40irc_a%2Fb%3Ahs.test", 404, "@irc_a/b:hs.test"},
		{"rooms/%23irc_a%2Fb%3Ahs.test", 200, "#irc_a/b:hs.test"},
		{"rooms/%23irc_%23x%3Ahs.test", 200, "#irc_#x:hs.test"},
		{"rooms/%23irc_%C3%A9%3Ahs.test", 200, "#irc_é:hs.test"},
		{"rooms/%23irc_%252f%3Ahs.test", 200, "#irc_%2f:hs.test"},
		{"rooms/%23irc_c%3Ahs.test", 404, "#irc_c:hs.test"},
		// Nobody in the namespace is called that, so nobody is asked.
		{"users/%40alice%3Ahs.test", 404, ""}, {"users/%40irc_a%3Aelsewhere.test", 404, ""}, {"users/irc_a", 404, ""},
		{"users/%40irc_a%3Ahs.test%3A8448", 404, ""}, {"users/%40irc_A%3Ahs.test", 404, ""}, {"users/%40irc_%20%3Ahs.test", 404, ""},
		{"users/%40irc_%0A%3Ahs.test", 404, ""}, {"users/%40irc_%FF%3Ahs.test", 404, ""}, {"users/%40irc_" + strings.Repeat("a", 300) + "%3Ahs.test", 404, ""},
		{"rooms/%23irc_" + strings.Repeat("a", 300) + "%3Ahs.test", 404, ""},
		{"rooms/%23other%3Ahs.test", 404, ""}, {"rooms/%23irc_%00%3Ahs.test", 404, ""}, {"rooms/!irc_a%3Ahs.test", 404, ""},
	} {
		q.asked = nil
		code, body := f.get(c.path)
		if code != c.status || q.all() != c.asked || code == 404 && !strings.Contains(body, codeNotFound) || code == 200 && body != "{}" {
			t.Errorf("%s: %d %s, asked %q; want %d, %q", c.path, code, body, q.all(), c.status, c.asked)
		}
	}
}

func TestQueries_HandlerFails_Is500AndNotUnknown(t *testing.T) {
	for name, fails := range map[string]func(context.Context, id.UserID) (bool, error){
		"error":         func(context.Context, id.UserID) (bool, error) { return false, errTest },
		"error, found":  func(context.Context, id.UserID) (bool, error) { return true, errTest },
		"panic":         func(context.Context, id.UserID) (bool, error) { panic("over this") },
		"does not stop": func(ctx context.Context, _ id.UserID) (bool, error) { <-ctx.Done(); return false, nil },
	} {
		q := newQuerier(fails)
		f := newFixture(t, newFakeHS(t), q.use, func(c *Config) { c.QueryTimeout = time.Millisecond })
		for _, path := range []string{askUser, askAlias} {
			if code, body := f.get(path); code != 500 || !strings.Contains(body, codeUnknown) || strings.Contains(body, "over this") {
				t.Errorf("%s: %s: %d %s", name, path, code, body)
			}
		}
		f.mustPut("1", events(message("$1"))) // and everything else goes on
		f.rec.waitEvents(0)
	}
}

func TestQueries_HandlerThatLooksAtNoContext_IsNotWaitedFor(t *testing.T) {
	gate := make(chan struct{})
	q := newQuerier(func(context.Context, id.UserID) (bool, error) { <-gate; return true, nil })
	f := newFixture(t, newFakeHS(t), q.use, func(c *Config) { c.QueryTimeout = time.Millisecond })
	if code, _ := f.get(askUser); code != 500 {
		t.Error(code)
	}
	close(gate)
}

func TestQueries_HomeserverGoesAway_EndsTheContext(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan error, 1)
	q := newQuerier(func(ctx context.Context, _ id.UserID) (bool, error) {
		close(asked)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return false, ctx.Err()
	})
	f := newFixture(t, newFakeHS(t), q.use, func(c *Config) { c.QueryTimeout = time.Hour })
	server := httptest.NewServer(f.as)
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", server.URL+"/_matrix/app/v1/"+askUser, nil)
	r.Header.Set("Authorization", "Bearer "+testHSToken)
	go func() {
		<-asked
		leave()
	}()
	if _, err := server.Client().Do(r); err == nil {
		t.Error("there was an answer")
	}
	if err := <-ended; err == nil {
		t.Error("the context did not end")
	}
}

func TestQueries_AppserviceStops_EndsTheContextAndWaits(t *testing.T) {
	asked := make(chan struct{})
	q := newQuerier(func(ctx context.Context, _ id.UserID) (bool, error) {
		close(asked)
		<-ctx.Done()
		return false, ctx.Err()
	})
	f := newFixture(t, newFakeHS(t), q.use, func(c *Config) { c.QueryTimeout = time.Hour })
	answered := make(chan int)
	go func() {
		code, _ := f.get(askUser)
		answered <- code
	}()
	<-asked
	f.stop()
	if code := <-answered; code != 500 {
		t.Error(code)
	}
	if code, body := f.get(askUser); code != 503 || !strings.Contains(body, codeUnknown) {
		t.Errorf("after the stop: %d %s", code, body)
	}
}

func TestQueries_MoreThanTheHandlerMayHave_WaitForAPlace(t *testing.T) {
	var running int
	var mu sync.Mutex
	gate, full := make(chan struct{}), make(chan struct{})
	q := newQuerier(func(context.Context, id.UserID) (bool, error) {
		mu.Lock()
		if running++; running == maxQuestions {
			close(full)
		}
		mu.Unlock()
		<-gate
		return false, nil
	})
	f := newFixture(t, newFakeHS(t), q.use, func(c *Config) { c.QueryTimeout = time.Hour })
	var all sync.WaitGroup
	for range 2 * maxQuestions {
		all.Go(func() {
			if code, body := f.get(askAlias); code != 404 {
				t.Errorf("%d %s", code, body)
			}
		})
	}
	<-full
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := f.as.questions.begin(impatient); err == nil {
			f.as.questions.end()
			t.Fatal("there was a place for one more")
		}
	}
	close(gate)
	all.Wait()
}

func TestQueryUser_Found_IsRegisteredBeforeTheAnswer(t *testing.T) {
	hs := newFakeHS(t)
	q := newQuerier(func(context.Context, id.UserID) (bool, error) { return true, nil })
	f := newFixture(t, hs, q.use)
	if code, _ := f.get(askUser); code != 200 || hs.count("POST /register user=@irc_a:hs.test") != 1 {
		t.Errorf("%d, %d registrations", code, hs.count("POST /register"))
	}
	if code, _ := f.get(askUser); code != 200 || hs.count("POST /register user=@irc_a:hs.test") != 1 || q.all() != "@irc_a:hs.test" {
		t.Errorf("again: %d, asked %s", code, q.all())
	}
}

func TestQueryUser_RegisteredGhostThatTheHomeserverForgot_IsRegisteredAgain(t *testing.T) {
	hs := newFakeHS(t)
	q := newQuerier(func(context.Context, id.UserID) (bool, error) { return true, nil })
	f := newFixture(t, hs, q.use)
	if err := f.as.Ghost("@irc_a:hs.test").EnsureRegistered(t.Context()); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	delete(hs.registered, "irc_a")
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.HasSuffix(r.URL.Path, "/whoami") && !hs.registered["irc_a"] {
			answerError(w, 403, codeForbidden, "Application service has not registered this user")
			return true
		}
		return false
	}
	hs.mu.Unlock()
	if code, body := f.get(askUser); code != 200 || hs.count("POST /register user=@irc_a:hs.test") != 2 {
		t.Errorf("%d %s, %d registrations", code, body, hs.count("POST /register user=@irc_a:hs.test"))
	}
}

func TestQueryUser_TheBot_NeedsNoHandler(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	if code, body := f.get("users/%40ircbot%3Ahs.test"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if code, body := f.get(askUser); code != 404 {
		t.Errorf("a ghost that nobody can be asked for: %d %s", code, body)
	}
}

func TestQueries_BeforeTheStart_AreNotAnsweredAsUnknown(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	as, err := New(Config{Registration: testRegistration(), HomeserverURL: f.hs.URL, ServerName: testServer, Store: f.store, Handler: f.rec})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/_matrix/app/v1/"+askUser, nil)
	r.Header.Set("Authorization", "Bearer "+testHSToken)
	as.ServeHTTP(w, r)
	if w.Code != 503 || !strings.Contains(w.Body.String(), codeUnknown) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
