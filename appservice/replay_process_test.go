package appservice

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// childVariable makes the test binary be a bridge on the store that it names, until nothing waits any more.
const childVariable = "TRESTLE_APPSERVICE_TEST_CHILD"

// deadly is a handler that ends its process over some events, and leaves an outbox row for every other.
type deadly struct{}

func (deadly) HandleEvent(ctx context.Context, ev *Event) ([]Effect, error) {
	content := string(ev.Raw)
	switch {
	case strings.Contains(content, "exits"):
		os.Exit(7)
	case strings.Contains(content, "is killed in doubt"):
		if err := ev.Doubt(ctx); err != nil {
			return nil, err
		}
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	case strings.Contains(content, "crashes a goroutine"):
		go func() { panic("for the test") }()
		select {}
	}
	return []Effect{func(tx *store.Tx) error {
		_, err := tx.Enqueue(&store.Outgoing{Lane: string(ev.RoomID), Payload: []byte(ev.ID)})
		return err
	}}, nil
}

func (deadly) HandleEphemeral(context.Context, *Ephemeral) {}

func runChild(uri string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, uri, store.Options{})
	if err != nil {
		return err
	}
	as, err := New(Config{
		Registration: testRegistration(), HomeserverURL: "http://127.0.0.1:1", ServerName: testServer,
		Store: s, Handler: deadly{}, Log: zerolog.Nop(), Workers: 4,
	})
	if err != nil {
		return err
	}
	as.replay.pause = 20 * time.Millisecond
	if err := as.Start(ctx); err != nil {
		return err
	}
	for {
		if n, _ := as.lanes.Len(); n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := as.Stop(ctx); err != nil {
		return err
	}
	return s.Close()
}

// Three events end every process that handles them, each in its own way and none as the first of its lane or alone. The
// process is started again and again, as a supervisor does. In the end they are in the dead letters, which say why, and
// every other event was delivered once and in order.
func TestReplay_EventsThatEndTheProcess_BecomeDeadLettersAndAllOthersAreDelivered(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { untilTheCulpritsAreFound(t, storetest.SQLite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { untilTheCulpritsAreFound(t, storetest.Postgres(t)) })
}

func untilTheCulpritsAreFound(t *testing.T, uri string) {
	const rooms, each = 6, 5
	poison := map[string]string{"$1-2": "exits", "$3-0": "is killed in doubt", "$4-4": "crashes a goroutine"}
	s := storetest.Open(t, uri, store.Options{})
	for n := range each {
		tr := &store.Transaction{ID: fmt.Sprint(n)}
		for room := range rooms {
			id := fmt.Sprintf("$%d-%d", room, n)
			raw := fmt.Sprintf(`{"type":"m.room.message","event_id":%q,"room_id":"!%d:hs.test","sender":"@a:hs.test","content":{"body":%q}}`, id, room, poison[id])
			tr.Elements = append(tr.Elements, store.Element{Kind: store.KindPDU, Lane: fmt.Sprintf("room:!%d:hs.test", room), Key: id, Raw: []byte(raw)})
		}
		storetest.Commit(t, s, func(tx *store.Tx) error { _, err := tx.Ingest(tr); return err })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	for ; ; ended++ {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childVariable+"="+uri)
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		if ended == 40 {
			t.Fatalf("the process has ended %d times; the last time with %v: %s", ended, err, out)
		}
	}
	t.Logf("%d processes ended over three events", ended)

	s = storetest.Open(t, uri, store.Options{})
	got := map[string][]string{}
	err = s.OutgoingBacklog(t.Context(), func(lane string, id int64) error {
		o, err := s.Outgoing(t.Context(), id)
		if err == nil {
			got[lane] = append(got[lane], string(o.Payload))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range rooms {
		var want []string
		for n := range each {
			if id := fmt.Sprintf("$%d-%d", room, n); poison[id] == "" {
				want = append(want, id)
			}
		}
		if lane := fmt.Sprintf("!%d:hs.test", room); fmt.Sprint(got[lane]) != fmt.Sprint(want) {
			t.Errorf("delivered in %s: %v, want %v", lane, got[lane], want)
		}
	}
	dead, err := s.DeadLetters(t.Context(), store.LetterQuery{Bodies: true})
	if err != nil || len(dead) != len(poison) {
		t.Errorf("%d dead letters, %v", len(dead), err)
	}
	for _, d := range dead {
		if poison[d.Key] == "" || !strings.Contains(d.Cause, "the process ended while this was under way") || len(d.Body) == 0 {
			t.Errorf("dead letter %s: %s", d.Key, d.Cause)
		}
	}
	if _, err := s.Setting(t.Context(), startsSetting); err == nil {
		t.Error("the last process stopped well, and its start is still counted")
	}
}
