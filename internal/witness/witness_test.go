package witness

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"maunium.net/go/mautrix/id"
)

func TestWitness_TransactionFailsAndComesAgainAfterOthers_OnlyWhatTheBridgeHadTakenIsBefore(t *testing.T) {
	var away atomic.Bool
	bridge := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
	}))
	defer bridge.Close()
	w := New(t, strings.TrimPrefix(bridge.URL, "http://"))
	give := func(transaction int, events ...id.EventID) {
		var all []string
		for _, ev := range events {
			all = append(all, fmt.Sprintf(`{"event_id":%q}`, ev))
		}
		body := strings.NewReader(`{"events":[` + strings.Join(all, ",") + `]}`)
		req, err := http.NewRequest(http.MethodPut, fmt.Sprintf("%s/_matrix/app/v1/transactions/%d", w.URL, transaction), body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if (err != nil) != away.Load() {
			t.Fatalf("transaction %d: the bridge is away: %v, and the error is %v", transaction, away.Load(), err)
		}
	}
	give(1, "$a", "$b")
	away.Store(true)
	give(2, "$late")
	away.Store(false)
	give(3, "$c")
	give(2, "$late")
	give(4, "$d")

	for _, want := range []struct {
		x, y   id.EventID
		before bool
	}{
		{"$a", "$b", true}, {"$b", "$a", false}, // of one transaction
		{"$b", "$c", true}, {"$c", "$b", false},
		{"$late", "$c", false}, {"$c", "$late", false}, // the bridge may have stored the first, or not
		{"$late", "$d", true}, {"$d", "$late", false},
		{"$a", "$never", false}, {"$never", "$a", false},
	} {
		if got := w.Before(want.x, want.y); got != want.before {
			t.Errorf("Before(%s, %s) is %v", want.x, want.y, got)
		}
	}
	if w.Missed() != 1 || !w.Saw("$late") || w.Saw("$never") {
		t.Errorf("missed %d, saw $late: %v, saw $never: %v", w.Missed(), w.Saw("$late"), w.Saw("$never"))
	}
}

// history is a homeserver with one room after another, of which it gives two events a page.
func history(t *testing.T, rooms map[string][]id.EventID) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		room := strings.TrimSuffix(strings.TrimPrefix(req.URL.Path, "/_matrix/client/v3/rooms/"), "/messages")
		from := 0
		_, _ = fmt.Sscanf(req.URL.Query().Get("from"), "t%d", &from)
		var chunk []string
		for _, ev := range rooms[room][from:min(from+2, len(rooms[room]))] {
			chunk = append(chunk, fmt.Sprintf(`{"event_id":%q}`, ev))
		}
		fmt.Fprintf(rw, `{"chunk":[%s],"end":"t%d"}`, strings.Join(chunk, ","), from+2)
	}))
	t.Cleanup(server.Close)
	return server
}

func TestWitness_BridgeReadsHistories_ItIsGivenWhatIsThereInTheirOrderAndHasTakenItWhenItReadsTheNext(t *testing.T) {
	bridge := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer bridge.Close()
	w := New(t, strings.TrimPrefix(bridge.URL, "http://"))
	address := w.Homeserver(t, history(t, map[string][]id.EventID{"!a": {"$a4", "$a3", "$a2", "$a1"}, "!b": {"$b2", "$b1"}, "!c": {"$c2", "$c1"}}).URL)
	read := func(room, more string) {
		t.Helper()
		resp, err := http.Get(address + "/_matrix/client/v3/rooms/" + room + "/messages?dir=b&limit=2" + more)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"end"`) {
			t.Fatalf("the bridge gets %q, %v", body, err)
		}
	}
	give := func(ev id.EventID) {
		t.Helper()
		req, _ := http.NewRequest(http.MethodPut, w.URL+"/_matrix/app/v1/transactions/1", strings.NewReader(fmt.Sprintf(`{"events":[{"event_id":%q}]}`, ev)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	w.Begins()
	give("$a1")
	read("!b", "&filter=x") // it looks for something else
	read("!a", "")
	read("!a", "&from=t2")
	give("$x") // while it reads
	read("!b", "")
	give("$y")
	w.Begins() // before it has read another room
	give("$b2")
	give("$z")
	read("!c", "")

	for _, want := range []struct {
		x, y   id.EventID
		before bool
	}{
		{"$a3", "$a4", true}, {"$a2", "$a3", true}, {"$a4", "$a2", false}, // of one reading
		{"$a1", "$a4", true}, {"$a4", "$a1", false}, // known before
		{"$a4", "$x", false}, {"$x", "$a4", false}, // it has perhaps not taken what it has read
		{"$a4", "$y", true}, {"$y", "$a4", false},
		{"$b1", "$b2", false}, {"$b2", "$b1", false}, // it has perhaps not taken them, and then was given the second
		{"$b2", "$z", true}, {"$b1", "$z", false},
		{"$c1", "$c2", true},
	} {
		if got := w.Before(want.x, want.y); got != want.before {
			t.Errorf("Before(%s, %s) is %v", want.x, want.y, got)
		}
	}
	if w.Saw("$a4") || w.Took("$a4") || !w.Saw("$b2") || !w.Took("$b2") || w.Took("$never") {
		t.Errorf("saw $a4: %v, took it %v, saw $b2: %v, took it %v", w.Saw("$a4"), w.Took("$a4"), w.Saw("$b2"), w.Took("$b2"))
	}
}
