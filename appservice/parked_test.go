package appservice

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// parkFirst makes the handler park $1 at its first coming.
func (f *fixture) parkFirst(until time.Time, arrived func(tx *store.Tx) (bool, error)) {
	parked := false
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.ID != "$1" || parked {
			return nil, nil
		}
		parked = true
		return []Effect{f.as.Park(ev, "session", until, arrived)}, nil
	}
}

func (f *fixture) commit(job func(tx *store.Tx) error) {
	f.t.Helper()
	if err := f.store.Commit(context.Background(), f.store.Epoch(), job); err != nil {
		f.t.Fatal(err)
	}
}

func TestPark_KeyComes_EventIsHandledAfterThoseThatPassedIt(t *testing.T) {
	f := newFixture(t, nil)
	f.parkFirst(time.Now().Add(time.Hour), nil)
	f.mustPut("1", events(message("$1"), message("$2")))
	f.idle()
	f.commit(func(tx *store.Tx) error { return f.as.Unpark(tx, testRoom, "another", "") })
	f.idle()
	if got := f.rec.ids(); got != "$1 $2" {
		t.Fatalf("handled %s", got)
	}
	f.commit(func(tx *store.Tx) error { return f.as.Unpark(tx, testRoom, "session", "") })
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $1" || len(f.deadLetters()) != 0 {
		t.Errorf("handled %s, dead letters %+v", got, f.deadLetters())
	}
}

func TestPark_ProcessEndsBetweenParkingAndTheKey_EventIsHandledOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.parkFirst(time.Now().Add(time.Hour), nil)
	f.mustPut("1", events(message("$1")))
	f.idle()
	f.crash()
	f.idle()
	if got := f.rec.ids(); got != "" {
		t.Fatalf("handled %s without its key", got)
	}
	f.commit(func(tx *store.Tx) error { return f.as.Unpark(tx, testRoom, "session", "") })
	f.idle()
	f.crash()
	f.idle()
	if got := f.rec.ids(); got != "" {
		t.Errorf("handled %s again", got)
	}
}

// The key comes between the attempt that misses it and the commit that parks the event.
func TestPark_KeyCameMeanwhile_IsNotMissed(t *testing.T) {
	f := newFixture(t, nil)
	f.parkFirst(time.Now().Add(time.Hour), func(*store.Tx) (bool, error) { return true, nil })
	f.mustPut("1", events(message("$1")))
	f.rec.waitEvents(2)
	f.idle()
	if got := f.rec.ids(); got != "$1 $1" {
		t.Errorf("handled %s", got)
	}
}

func TestUnpark_LaneThatWaitsForTheKey_GoesOnAtOnce(t *testing.T) {
	f := newFixture(t, nil)
	tries := 0
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) {
		if tries++; tries == 1 {
			return nil, LaterIn(time.Hour, errTest)
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1")))
	f.waitLater("room:" + testRoom)
	f.commit(func(tx *store.Tx) error { return f.as.Unpark(tx, testRoom, "session", "") })
	f.idle() // would take an hour
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
}

func TestLaterIn_TimeIsOver_IsTriedAgain(t *testing.T) {
	f := newFixture(t, nil)
	tries := 0
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) {
		if tries++; tries == 1 {
			return nil, LaterIn(10*time.Millisecond, errTest)
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1")))
	f.idle() // Later alone waits for 30 s
	if tries != 2 || LaterIn(time.Second, nil) != nil {
		t.Errorf("%d tries", tries)
	}
}

func TestBuryOverdue_KeyDoesNotCome_IsADeadLetterThatItsHandlerIsToldOf(t *testing.T) {
	f := newFixture(t, nil)
	f.parkFirst(time.Now().Add(-time.Second), nil)
	f.mustPut("1", events(message("$1")))
	f.idle()
	for _, want := range []int{1, 0} {
		if n, err := f.as.BuryOverdue(t.Context(), 10, errTest); n != want || err != nil {
			t.Fatalf("%d were buried, want %d: %v", n, want, err)
		}
	}
	letters := f.deadLetters()
	if len(letters) != 1 || letters[0].Key != "$1" || letters[0].Kind != "pdu" || letters[0].Lane != "room:"+testRoom || letters[0].Cause != errTest.Error() {
		t.Fatalf("dead letters %+v", letters)
	}
	if told := f.rec.buried; len(told) != 1 || !errors.Is(told[0], errTest) {
		t.Errorf("the handler was told of %v", told)
	}
	if err := f.as.ReplayDeadLetter(t.Context(), letters[0].ID); err != nil {
		t.Error(err)
	}
	f.idle()
	if got := f.rec.ids(); got != "$1 $1" {
		t.Errorf("handled %s", got)
	}
}
