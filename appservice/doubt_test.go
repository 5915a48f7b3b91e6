package appservice

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// untilCrash is a handler that marks its event and then is there until the process ends.
func untilCrash(t *testing.T, entered chan<- Event) func(ctx context.Context, ev *Event) ([]Effect, error) {
	return func(ctx context.Context, ev *Event) ([]Effect, error) {
		if err := ev.Doubt(ctx); err != nil {
			t.Error(err)
			return nil, err
		}
		entered <- *ev
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// stopShort stops while a handler runs: its context ends at once.
func (f *fixture) stopShort() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.as.Stop(ctx); err != nil {
		f.t.Error(err)
	}
}

func TestDoubt_CleanStopWithAPlainError_LeavesNoDoubtAndNoAttempt(t *testing.T) {
	f := newFixture(t, nil)
	entered := make(chan Event, 1)
	f.rec.handle = untilCrash(t, entered)
	f.mustPut("1", events(message("$1")))
	<-entered
	f.stopShort()
	f.crashTo(nil)
	if got := f.rec.waitEvents(1); got[0].InDoubt || got[0].Attempts != 0 {
		t.Errorf("%+v", got[0])
	}
	f.idle()
}

func TestDoubt_CleanStopWithoutKnowing_StaysInDoubt(t *testing.T) {
	for what, end := range map[string]func() error{
		"a permanent error": func() error { return Permanent(errTest) },
		"a panic":           func() error { panic("boom") },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t, nil)
			entered := make(chan struct{})
			f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
				if err := ev.Doubt(ctx); err != nil {
					return nil, err
				}
				close(entered)
				<-ctx.Done()
				return nil, end()
			}
			f.mustPut("1", events(message("$1")))
			<-entered
			f.stopShort()
			f.crashTo(nil)
			if got := f.rec.waitEvents(1); !got[0].InDoubt {
				t.Errorf("%+v", got[0])
			}
			f.idle()
		})
	}
}

func TestDoubt_PanicAfterwards_TheNextAttemptIsInDoubt(t *testing.T) {
	f := newFixture(t, nil)
	sent, looked := 0, make(chan struct{})
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.InDoubt {
			<-looked
			return nil, Permanent(errTest)
		}
		if err := ev.Doubt(ctx); err != nil {
			return nil, err
		}
		sent++
		panic("after it left")
	}
	f.mustPut("1", events(message("$1")))
	for f.as.heads.get("room:"+testRoom).attempts == 0 {
		time.Sleep(time.Millisecond)
	}
	if doubt, attempts := f.progress("room:" + testRoom); !doubt || attempts != 1 {
		t.Errorf("in the store: in doubt %v, attempts %d", doubt, attempts)
	}
	close(looked)
	f.as.lanes.Wake("room:" + testRoom)
	f.idle()
	if sent != 1 || len(f.deadLetters()) != 1 {
		t.Errorf("sent %d times, dead letters %+v", sent, f.deadLetters())
	}
}

func TestDoubt_OfAnEarlierProcess_OutlivesAFailureBeforeTheHandlerCameToIt(t *testing.T) {
	f := newFixture(t, nil)
	entered := make(chan Event, 1)
	f.rec.handle = untilCrash(t, entered)
	f.mustPut("1", events(message("$1")))
	<-entered
	var doubts []bool
	causes := []error{errTest, Later(errTest), nil}
	f.crashTo(func(_ context.Context, ev *Event) ([]Effect, error) {
		doubts = append(doubts, ev.InDoubt)
		return nil, causes[len(doubts)-1]
	})
	f.waitLater("room:" + testRoom)
	if doubt, _ := f.progress("room:" + testRoom); !doubt {
		t.Error("the store forgot the doubt")
	}
	f.as.Wake()
	f.idle()
	if fmt.Sprint(doubts) != "[true true true]" {
		t.Errorf("in doubt: %v", doubts)
	}
}

func TestDoubt_EveryProcessEndsOverIt_IsBuriedAfterFive(t *testing.T) {
	f := newFixture(t, nil)
	entered := make(chan Event, 1)
	f.rec.handle = untilCrash(t, entered)
	f.mustPut("1", events(message("$1"), message("$2")))
	for n := range maxCrashes {
		if ev := <-entered; ev.ID != "$1" || ev.Attempts != n || ev.InDoubt != (n > 0) {
			t.Errorf("process %d: %s with %d attempts, in doubt %v", n+1, ev.ID, ev.Attempts, ev.InDoubt)
		}
		f.crash()
	}
	if ev := <-entered; ev.ID != "$2" || ev.Attempts != 0 || ev.InDoubt {
		t.Errorf("%+v", ev)
	}
	dead := f.deadLetters()
	if len(dead) != 1 || dead[0].Key != "$1" || dead[0].Attempts != maxCrashes || !strings.Contains(dead[0].Cause, "5 times in a row") {
		t.Errorf("%+v", dead)
	}
	f.stopShort()
}

func TestDoubt_RestartsWhileItWaitsForTheNetwork_AreNoCrashes(t *testing.T) {
	f := newFixture(t, nil)
	entered := make(chan Event, 1)
	f.rec.handle = untilCrash(t, entered)
	f.mustPut("1", events(message("$1")))
	<-entered
	for range maxCrashes + 1 {
		f.crashTo(func(context.Context, *Event) ([]Effect, error) { return nil, Later(errTest) })
		f.waitLater("room:" + testRoom)
	}
	f.crashTo(nil)
	if got := f.rec.waitEvents(1); !got[0].InDoubt || len(f.deadLetters()) != 0 {
		t.Errorf("%+v, dead letters %+v", got[0], f.deadLetters())
	}
	f.idle()
}
