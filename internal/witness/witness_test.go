package witness

import (
	"fmt"
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
