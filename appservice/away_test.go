package appservice

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// logSignal is a log that tells when a line with some text is written.
type logSignal struct {
	text string
	seen chan struct{}
}

func newLogSignal(text string) *logSignal {
	return &logSignal{text: text, seen: make(chan struct{}, 1000)}
}

func (l *logSignal) Write(p []byte) (int, error) {
	if strings.Contains(string(p), l.text) {
		select {
		case l.seen <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

func (l *logSignal) forget() {
	for {
		select {
		case <-l.seen:
		default:
			return
		}
	}
}

const heldBack = "A transaction is held back"

// The server of the database is stopped, under the intake and under a handler that has just done its work, and started
// again. Transactions are held back, then refused, then taken; what was acknowledged is handled once; nobody is needed.
func TestAway_PostgreSQLStoppedAndStarted_HoldsRefusesAndRecoversAlone(t *testing.T) {
	server := storetest.NewPostgres(t)
	s := storetest.Open(t, server.Fresh(t), store.Options{Log: zerolog.Nop()})
	hs := httptest.NewServer(http.NotFoundHandler())
	defer hs.Close()
	rec, log := newRecorder(), newLogSignal(heldBack)
	entered, release := make(chan struct{}), make(chan struct{})
	rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.ID == "$1" {
			close(entered)
			<-release
		}
		return []Effect{func(tx *store.Tx) error {
			_, err := tx.Enqueue(&store.Outgoing{Lane: "done", Payload: []byte(ev.ID)})
			return err
		}}, nil
	}
	as, err := New(Config{
		Registration: testRegistration(), HomeserverURL: hs.URL, ServerName: testServer,
		Store: s, Handler: rec, Log: zerolog.New(log), HoldFor: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, as: as, rec: rec, store: s, hs: hs}
	defer f.stop()
	f.mustPut("1", events(message("$1")))
	<-entered

	server.Stop(t)
	close(release) // its effects cannot be written now
	if code, body := f.put("2", events(message("$2"))); code != http.StatusServiceUnavailable || strings.Contains(body, "postgres") {
		t.Errorf("with the database away: %d %s", code, body)
	}
	log.forget()
	answered := make(chan int, 1)
	go func() {
		code := 0
		for code != http.StatusOK { // as a homeserver does
			code, _ = f.put("2", events(message("$2")))
		}
		answered <- code
	}()
	<-log.seen
	server.Start(t)
	<-answered
	f.mustPut("3", events(message("$3")))
	f.idle()
	if err := as.Ready(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	f.wantOutbox("$1 $2 $3")
	if n := len(rec.waitEvents(3)); n != 3 {
		t.Errorf("%d events were handled", n)
	}
}

// wantOutbox compares the payloads of all outbox rows, in order.
func (f *fixture) wantOutbox(want string) {
	f.t.Helper()
	var got []string
	err := f.store.OutgoingBacklog(context.Background(), func(_ string, id int64) error {
		o, err := f.store.Outgoing(context.Background(), id)
		if err == nil {
			got = append(got, string(o.Payload))
		}
		return err
	})
	if err != nil || strings.Join(got, " ") != want {
		f.t.Errorf("done: %s, %v; want %s", strings.Join(got, " "), err, want)
	}
	if dead := f.deadLetters(); len(dead) != 0 {
		f.t.Errorf("dead letters: %+v", dead)
	}
}

func padded(id string, size int) string {
	return fmt.Sprintf(`{"type":"m.room.message","event_id":%q,"room_id":%q,"sender":"@a:hs.test","content":{"body":%q}}`, id, testRoom, strings.Repeat("x", size))
}
