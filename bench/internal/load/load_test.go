package load_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/bench/internal/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type transaction struct {
	Events []struct {
		EventID string `json:"event_id"`
		RoomID  string `json:"room_id"`
		Type    string `json:"type"`
		Content struct {
			N    int64  `json:"n"`
			Body string `json:"body"`
		} `json:"content"`
	} `json:"events"`
}

func TestGenerator_EveryEventHasItsOwnIDAndTheNextNumberOfItsRoom(t *testing.T) {
	g := load.NewGenerator("secret", 7, 1)
	seen := map[string]bool{}
	last := map[string]int64{}
	transactions := map[int64]bool{}
	for _, size := range []int{100, 1, 1, 3, 100, 1, 0} {
		r := g.Transaction(size)
		if transactions[r.ID] {
			t.Fatalf("transaction ID %d comes twice", r.ID)
		}
		transactions[r.ID] = true
		var txn transaction
		if err := json.Unmarshal(r.Body(), &txn); err != nil {
			t.Fatalf("a transaction of %d events is not JSON: %v", size, err)
		}
		if len(txn.Events) != size {
			t.Fatalf("%d events, not %d", len(txn.Events), size)
		}
		for _, e := range txn.Events {
			if seen[e.EventID] || len(e.EventID) != 44 {
				t.Fatalf("event ID %q: it comes twice, or has not the length of one", e.EventID)
			}
			seen[e.EventID] = true
			if before, ok := last[e.RoomID]; ok && e.Content.N != before+1 {
				t.Fatalf("n is %d after %d in %s", e.Content.N, before, e.RoomID)
			}
			last[e.RoomID] = e.Content.N
		}
	}
	if len(last) != 7 {
		t.Fatalf("%d rooms, not 7", len(last))
	}
}

func TestGenerator_AHundredEventsAreAbout58KB(t *testing.T) {
	if n := len(load.NewGenerator("secret", 50, 1).Transaction(100).Body()); n < 55_000 || n > 61_000 {
		t.Fatalf("%d bytes", n)
	}
}

func TestGenerator_OtherSeedsMakeOtherEvents(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		var txn transaction
		if err := json.Unmarshal(load.NewGenerator("secret", 5, seed).Transaction(100).Body(), &txn); err != nil {
			t.Fatal(err)
		}
		for _, e := range txn.Events {
			if seen[e.EventID] {
				t.Fatalf("event ID %q comes with two seeds", e.EventID)
			}
			seen[e.EventID] = true
		}
	}
}

// server answers transactions with what answer says, and keeps their IDs and bodies.
func server(t *testing.T, answer func(call int) int) (addr string, calls func() []string) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer secret" || r.Method != http.MethodPut {
			t.Errorf("%s with %q, body: %v", r.Method, r.Header, err)
		}
		got = append(got, r.URL.Path+" "+string(body))
		status := answer(len(got))
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), func() []string { return got }
}

func TestDrive_CountsWhatWasAcknowledged(t *testing.T) {
	addr, calls := server(t, func(int) int { return 200 })
	conn, err := load.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := load.Drive(context.Background(), conn, load.NewGenerator("secret", 5, 1), 10, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(calls()); r.Transactions != n || r.Events != 10*n || r.Latency(0.5) <= 0 || r.Latency(0.5) > r.Latency(1) {
		t.Fatalf("%d calls, but the result is %+v", n, r)
	}
}

func TestDrive_ARefusalIsAnError(t *testing.T) {
	addr, _ := server(t, func(call int) int { return 200 + 200*(call/3) })
	conn, err := load.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = load.Drive(context.Background(), conn, load.NewGenerator("secret", 5, 1), 1, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "status 400") {
		t.Fatalf("error %v", err)
	}
}

func TestResender_SendsTheSameUntilItIsAcknowledged(t *testing.T) {
	answers := []int{200, 0, 503, 0, 200, 200}
	addr, calls := server(t, func(call int) int { return answers[call-1] })
	g := load.NewGenerator("secret", 5, 1)
	s := &load.Resender{Addr: func() string { return addr }}
	defer s.Close()
	for range 3 {
		if err := s.Send(context.Background(), g.Transaction(2)); err != nil {
			t.Fatal(err)
		}
	}
	got := calls()
	if len(got) != len(answers) || s.Acknowledged != 6 || s.Sendings != 6 {
		t.Fatalf("%d calls, %d acknowledged, %d sendings", len(got), s.Acknowledged, s.Sendings)
	}
	if got[1] != got[2] || got[1] != got[3] || got[1] != got[4] || got[0] == got[1] || got[4] == got[5] {
		t.Fatalf("the second transaction was not sent as it was until it was acknowledged:\n%s", strings.Join(got, "\n"))
	}
}

func TestResender_ARefusalThatNoRepetitionMendsIsAnError(t *testing.T) {
	addr, calls := server(t, func(int) int { return 403 })
	s := &load.Resender{Addr: func() string { return addr }}
	defer s.Close()
	if err := s.Send(context.Background(), load.NewGenerator("secret", 5, 1).Transaction(1)); err == nil || len(calls()) != 1 {
		t.Fatalf("error %v after %d calls", err, len(calls()))
	}
}
