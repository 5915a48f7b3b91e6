package appservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

func TestA26_EventsOfARoom_KeepTheirOrder(t *testing.T) {
	f := newFixture(t, nil)
	var want []string
	for txn := range 10 {
		var list []string
		for n := range 10 {
			for room := range 5 {
				list = append(list, messageIn(fmt.Sprintf("!r%d:hs.test", room), fmt.Sprintf("$%d-%d-%d", room, txn, n)))
			}
			want = append(want, fmt.Sprintf("%d-%d", txn, n))
		}
		f.mustPut(fmt.Sprint(txn), events(list...))
	}
	f.idle()
	got := map[string][]string{}
	for _, ev := range f.rec.events {
		room, rest, _ := strings.Cut(string(ev.ID[1:]), "-")
		got[room] = append(got[room], rest)
	}
	for room := range 5 {
		if fmt.Sprint(got[fmt.Sprint(room)]) != fmt.Sprint(want) {
			t.Errorf("room %d: %v", room, got[fmt.Sprint(room)])
		}
	}
}

func TestA27_CrashRightAfter200_EveryEventIsHandledOnce(t *testing.T) {
	f := newFixture(t, nil)
	stuck := make(chan struct{})
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.ID == "$2" {
			close(stuck)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), message("$2"), message("$3")))
	<-stuck
	f.crashTo(nil)
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" && got != "$2 $3" {
		t.Errorf("handled %s after the crash", got)
	}
	f.crash()
	f.idle()
	if got := f.rec.ids(); got != "" {
		t.Errorf("handled %s again", got)
	}
}

func TestIntake_BodyOverTheLimit_Is413AndNotStored(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.MaxBody = 500 })
	big := events(message("$1"), message("$2"), message("$3"))
	if code, body := f.put("1", big); code != 413 || !strings.Contains(body, "M_TOO_LARGE") {
		t.Errorf("%d %s", code, body)
	}
	req := httptest.NewRequest(http.MethodPut, "/_matrix/app/v1/transactions/2", io.MultiReader(strings.NewReader(big)))
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	w := httptest.NewRecorder()
	f.as.ServeHTTP(w, req)
	if w.Code != 413 {
		t.Errorf("without a length: %d", w.Code)
	}
	f.mustPut("3", events(message("$1")))
	f.idle()
	if len(f.deadLetters()) != 0 || f.rec.ids() != "$1" {
		t.Errorf("handled %s, dead letters %v", f.rec.ids(), f.deadLetters())
	}
}

func TestIntake_BodyThatBreaksOff_Is400AndNotStored(t *testing.T) {
	f := newFixture(t, nil)
	server := httptest.NewServer(f.as)
	defer server.Close()
	for _, head := range []string{"Content-Length: 5000", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body := events(message("$1"))
		if strings.HasPrefix(head, "Transfer") {
			body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
		}
		fmt.Fprintf(conn, "PUT /_matrix/app/v1/transactions/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", testHSToken, head, body)
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("%s: %q", head, answer)
		}
	}
	f.idle()
	if len(f.deadLetters()) != 0 || f.rec.ids() != "" {
		t.Errorf("handled %s, dead letters %v", f.rec.ids(), f.deadLetters())
	}
}

func TestIntake_BacklogAtItsLimit_IsHeldAndThenRefusedAndRecovers(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 2 })
	release := make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	f.mustPut("1", events(message("$1"), message("$2")))
	patience := f.as.cfg.HoldFor
	f.as.cfg.HoldFor = 3 * holdPause
	if code, body := f.put("2", events(message("$3"))); code != 503 || !strings.Contains(body, "M_UNKNOWN") {
		t.Errorf("%d %s", code, body)
	}
	f.as.cfg.HoldFor = patience // that of a commit is another matter
	if err := f.as.Ready(); !errors.Is(err, errBacklog) {
		t.Errorf("ready: %v", err)
	}
	close(release)
	f.idle()
	if err := f.as.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	f.mustPut("2", events(message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" {
		t.Errorf("handled %s", got)
	}
}

func TestIntake_BacklogShrinksWhileHeld_IsTakenIn(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 1 })
	release := make(chan struct{})
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		<-release
		return nil, nil
	}
	f.mustPut("1", events(message("$1")))
	answered := make(chan int)
	go func() {
		code, _ := f.put("2", events(message("$2")))
		answered <- code
	}()
	close(release)
	if code := <-answered; code != 200 {
		t.Errorf("%d", code)
	}
}

func TestIntake_ClientGone_StopsHolding(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 1 })
	release := make(chan struct{})
	defer close(release)
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	f.mustPut("1", events(message("$1")))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	req := httptest.NewRequest(http.MethodPut, "/_matrix/app/v1/transactions/2", strings.NewReader(events(message("$2")))).WithContext(ctx)
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	f.as.ServeHTTP(httptest.NewRecorder(), req) // would hold for 20 s
}

func TestIntake_StoreClosed_Is503(t *testing.T) {
	f := newFixture(t, nil)
	_ = f.store.Close()
	if code, body := f.put("1", events(message("$1"))); code != 503 || !strings.Contains(body, "M_UNKNOWN") {
		t.Errorf("%d %s", code, body)
	}
}

func TestIntake_AfterStop_Is503(t *testing.T) {
	f := newFixture(t, nil)
	f.stop()
	if code, _ := f.put("1", events(message("$1"))); code != 503 {
		t.Errorf("%d", code)
	}
	if err := f.as.Ready(); err == nil {
		t.Error("ready after Stop")
	}
}

func TestIntake_EncryptionEvent_MarksTheRoomInTheSameCommit(t *testing.T) {
	f := newFixture(t, nil)
	release := make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	f.mustPut("1", events(message("$1"), `{"type":"m.room.encryption","state_key":"","content":{"algorithm":"m.megolm.v1.aes-sha2"},"event_id":"$e","room_id":"!secret:hs.test","sender":"@bob:hs.test"}`,
		`{"type":"m.room.encryption","content":{},"event_id":"$n","room_id":"!plain:hs.test","sender":"@bob:hs.test"}`))
	for room, want := range map[string]bool{"!secret:hs.test": true, "!plain:hs.test": false, testRoom: false} {
		if got, _, err := f.store.Encrypted(context.Background(), room); err != nil || got != want {
			t.Errorf("%s encrypted: %v %v", room, got, err)
		}
	}
	close(release)
}

func TestIntake_StoreBusy_AcknowledgesOnlyAfterTheCommit(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.HoldFor = 50 * time.Millisecond })
	// A job that holds the one writer stands for a slow disk: nothing may be handed over or acknowledged before the commit.
	gate, entered, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		_ = f.store.Commit(context.Background(), f.as.epoch, func(*store.Tx) error { close(entered); <-gate; return nil })
	}()
	<-entered
	if code, _ := f.put("1", events(message("$1"))); code != 503 {
		t.Errorf("answered %d before the commit", code)
	}
	if f.rec.ids() != "" {
		t.Error("handled before the commit")
	}
	close(gate)
	<-over
	for code := 0; code != 200; { // the homeserver sends it again, until the store is there
		if code, _ = f.put("1", events(message("$1"))); code != 200 && code != 503 {
			t.Fatalf("answered %d", code)
		}
	}
	f.idle()
	if f.rec.ids() != "$1" {
		t.Errorf("handled: %q", f.rec.ids())
	}
}
