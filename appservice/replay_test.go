package appservice

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// starts reads what the store knows of starts that did not end well.
func (f *fixture) starts() (record startRecord) {
	f.t.Helper()
	value, err := f.store.Setting(context.Background(), startsSetting)
	if err != nil {
		return record
	}
	if err := json.Unmarshal(value, &record); err != nil {
		f.t.Fatal(err)
	}
	return record
}

// crashUntilCareful lets processes end until the next one replays with care.
func (f *fixture) crashUntilCareful(handle func(ctx context.Context, ev *Event) ([]Effect, error)) {
	f.t.Helper()
	for n := range badStarts {
		if got := f.starts(); got.Bad != n+1 || got.Careful {
			f.t.Fatalf("in process %d: %+v", n+1, got)
		}
		if n == badStarts-1 {
			f.crashTo(handle)
		} else {
			f.crash()
		}
	}
}

// entry is what one careful turn was given.
type entry struct {
	id      string
	attempt int
	doubt   bool
	done    chan<- error
}

// stepwise is a handler that asks the test what becomes of each event.
func stepwise(entries chan<- entry) func(ctx context.Context, ev *Event) ([]Effect, error) {
	return func(ctx context.Context, ev *Event) ([]Effect, error) {
		done := make(chan error, 1)
		select {
		case entries <- entry{string(ev.ID), ev.Attempts, ev.InDoubt, done}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		select {
		case err := <-done:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func threeRooms(f *fixture) {
	f.mustPut("1", events(messageIn("!a:hs.test", "$a1"), messageIn("!b:hs.test", "$b1"), messageIn("!c:hs.test", "$c1"),
		messageIn("!a:hs.test", "$a2"), messageIn("!a:hs.test", "$a3")))
}

func TestReplay_Careful_OneTurnAtATimeAndTransactionsAreStillTaken(t *testing.T) {
	f := newFixture(t, nil)
	entries := make(chan entry)
	hold := func(ctx context.Context, _ *Event) ([]Effect, error) { <-ctx.Done(); return nil, ctx.Err() }
	f.rec.handle = hold
	threeRooms(f)
	f.crashUntilCareful(stepwise(entries))

	first := <-entries
	record := f.starts()
	if first.id != "$a1" || !record.Careful || record.Bad != badStarts+1 || len(record.Tried) != 1 || !record.Tried[0].Alone || string(record.Tried[0].Lane) != "room:!a:hs.test" {
		t.Errorf("while %s is tried the store knows %+v", first.id, record)
	}
	f.mustPut("2", events(messageIn("!d:hs.test", "$d1")))
	select {
	case e := <-entries:
		t.Errorf("%s is tried beside %s", e.id, first.id)
	default:
	}
	first.done <- nil
	var order []string
	for range 6 - 1 {
		e := <-entries
		order = append(order, e.id)
		if e.id == "$b1" {
			e.done <- errTest // a failing head is none that ends the process: the others go on
		} else {
			e.done <- nil
		}
	}
	if got := strings.Join(order, " "); got != "$b1 $c1 $d1 $a2 $a3" {
		t.Errorf("tried %s", got)
	}
	<-f.as.replay.through
	again := <-entries // of $b1, after its backoff
	if again.id != "$b1" || again.attempt != 1 {
		t.Errorf("%+v", again)
	}
	again.done <- nil
	f.idle()
	if record = f.starts(); record.Careful || len(record.Tried) != 0 || record.Bad != badStarts+1 {
		t.Errorf("when all was tried the store knows %+v", record)
	}
}

func TestReplay_SlowTurn_HoldsTheOthersForAWhileOnly(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) { <-ctx.Done(); return nil, ctx.Err() }
	threeRooms(f)
	f.prepare = func(as *AppService) { as.replay.slow = time.Millisecond }
	release := make(chan struct{})
	f.crashUntilCareful(func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.ID == "$a1" {
			<-release
		}
		return nil, nil
	})
	got := f.rec.waitEvents(2)
	if ids := []string{string(got[0].ID), string(got[1].ID)}; !slices.Contains(ids, "$b1") || !slices.Contains(ids, "$c1") {
		t.Errorf("beside $a1: %s", ids) // which may be slow turns themselves, and so in any order
	}
	select {
	case <-f.as.replay.through:
	case <-time.After(time.Minute):
		t.Error("the replay does not end")
	}
	close(release)
	f.idle()
}

// Two lanes are in doubt when the process ends, again and again. Only one is the cause, and only it is blamed.
func TestReplay_NeighbourInDoubt_IsNotBlamed(t *testing.T) {
	f := newFixture(t, nil)
	var mu sync.Mutex
	inside := 0
	both := make(chan struct{}, 100)
	doubtful := func(ctx context.Context, ev *Event) ([]Effect, error) {
		if err := ev.Doubt(ctx); err != nil {
			return nil, err
		}
		mu.Lock()
		if inside++; inside%2 == 0 {
			both <- struct{}{}
		}
		mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.rec.handle = doubtful
	f.mustPut("1", events(messageIn("!a:hs.test", "$a1"), messageIn("!b:hs.test", "$b1")))
	for n := range badStarts {
		<-both
		if n == badStarts-1 {
			break
		}
		f.crash()
	}
	alone := make(chan Event, 10)
	for n := 0; ; n++ {
		f.crashTo(untilCrash(t, alone))
		if f.starts().Bad != badStarts+1+n {
			t.Fatalf("%+v", f.starts())
		}
		if n == 2 {
			break // it has been counted five times now
		}
		if ev := <-alone; ev.ID != "$a1" || ev.Attempts != badStarts+n {
			t.Fatalf("%s with %d attempts", ev.ID, ev.Attempts)
		}
	}
	ev := <-alone
	if ev.ID != "$b1" || ev.Attempts != badStarts || !ev.InDoubt {
		t.Errorf("%s comes with %d attempts, in doubt: %v", ev.ID, ev.Attempts, ev.InDoubt)
	}
	if dead := f.deadLetters(); len(dead) != 1 || dead[0].Key != "$a1" {
		t.Errorf("%+v", dead)
	}
	f.stopShort()
}

// A process is killed from outside, again and again and soon after its start. What it was once killed over waits a while
// from then on, so that it is not blamed for the others.
func TestReplay_KilledFromOutside_NobodyIsBlamed(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) { <-ctx.Done(); return nil, ctx.Err() }
	threeRooms(f)
	alone := make(chan Event, 10)
	f.crashUntilCareful(untilCrash(t, alone))
	if ev := <-alone; ev.ID != "$a1" {
		t.Fatalf("%s is tried first", ev.ID)
	}
	f.prepare = func(as *AppService) { as.replay.pause = time.Hour }
	f.crashTo(nil)
	if got := f.rec.waitEvents(2); got[0].ID != "$b1" || got[1].ID != "$c1" {
		t.Errorf("beside $a1, %s and %s are tried", got[0].ID, got[1].ID)
	}
	for waiting := 0; waiting != 3; waiting, _ = f.as.lanes.Len() { // until it is durable that these two are over
		time.Sleep(time.Millisecond)
	}
	for range maxAlone + 1 {
		select {
		case <-f.as.replay.through:
			t.Error("the replay is over, and $a1 was not tried")
		default:
		}
		f.crash()
	}
	f.prepare = nil
	f.crash()
	f.idle()
	if got := f.rec.ids(); got != "$a1 $a2 $a3" {
		t.Errorf("handled %s", got)
	}
	if dead := f.deadLetters(); len(dead) != 0 {
		t.Errorf("%+v", dead)
	}
}

func TestReplay_EndsEvenOverTheBurial_IsBuriedWithoutTheHandler(t *testing.T) {
	for alone, told := range map[int]int{maxAlone: 1, maxAlone + 1: 0} {
		f := newFixture(t, nil)
		f.as.heads.set("room:"+testRoom, head{attempts: alone, crashes: alone, alone: alone})
		f.mustPut("1", events(message("$1"), message("$2")))
		f.idle()
		dead := f.deadLetters()
		if len(dead) != 1 || dead[0].Key != "$1" || !strings.Contains(dead[0].Cause, fmt.Sprintf("%d times while nothing else was", alone)) || dead[0].Attempts != alone {
			t.Errorf("%+v", dead)
		}
		if f.rec.ids() != "$2" || len(f.rec.buried) != told {
			t.Errorf("after %d times: handled %s, told of %d burials", alone, f.rec.ids(), len(f.rec.buried))
		}
	}
}

func TestReplay_StopsThatGoWell_DoNotCount(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) { <-ctx.Done(); return nil, ctx.Err() }
	threeRooms(f)
	for range 2 * badStarts {
		if got := f.starts(); got.Bad != 1 {
			t.Fatalf("%+v", got)
		}
		f.stopShort()
		if got := f.starts(); got.Bad != 0 {
			t.Fatalf("after a stop: %+v", got)
		}
		f.crash() // nothing is left of the process that could
	}
	// While the replay is careful, a stop only leaves things as they were.
	f.crashUntilCareful(f.rec.handle)
	f.stopShort()
	if got := f.starts(); got.Bad != badStarts || got.Careful || len(got.Tried) != 0 {
		t.Errorf("after a stop in the middle: %+v", got)
	}
	f.crash()
	if got := f.starts(); got.Bad != badStarts+1 || !got.Careful {
		t.Errorf("the next start: %+v", got)
	}
	f.stopShort()
}

func TestReplay_ProcessThatLives_IsProven(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) { <-ctx.Done(); return nil, ctx.Err() }
	threeRooms(f)
	f.crash()
	f.prepare = func(as *AppService) { as.replay.proven = time.Nanosecond }
	gate := make(chan struct{})
	f.crashTo(func(context.Context, *Event) ([]Effect, error) { <-gate; return nil, errTest })
	if got := f.starts(); got.Bad != 3 {
		t.Errorf("before anything was tried: %+v", got)
	}
	close(gate)
	for f.starts().Bad != 0 { // although the heads wait for their next attempt
		time.Sleep(time.Millisecond)
	}
}

func TestReplay_UnreadableRecord_IsForgotten(t *testing.T) {
	f := newFixture(t, nil)
	err := f.store.Commit(t.Context(), f.as.epoch, func(tx *store.Tx) error { return tx.PutSetting(startsSetting, []byte("{")) })
	if err != nil {
		t.Fatal(err)
	}
	f.crash()
	if got := f.starts(); got.Bad != 1 {
		t.Errorf("%+v", got)
	}
}
