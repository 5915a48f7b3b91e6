package appservice

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// progress reads from the store what it knows of the first event of a lane.
func (f *fixture) progress(lane string) (doubt bool, attempts int) {
	f.t.Helper()
	err := f.store.Backlog(context.Background(), func(r store.LaneRefs) error {
		if r.Lane == lane {
			doubt, attempts = r.Doubt, r.Attempts
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return doubt, attempts
}

// waitLater waits until a lane waits because of Later.
func (f *fixture) waitLater(lane string) {
	for {
		f.as.later.mu.Lock()
		_, ok := f.as.later.lanes.Get(lane)
		f.as.later.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLater_WaitsForWakeWithoutAnAttemptADoubtOrAWorker(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Workers, c.MaxAge = 1, time.Nanosecond })
	refuse := true
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.RoomID != testRoom {
			return nil, nil
		}
		if err := ev.Doubt(ctx); err != nil {
			return nil, err
		}
		if refuse {
			return nil, fmt.Errorf("sending: %w", Later(errTest))
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), message("$2")))
	for range 3 {
		f.waitLater("room:" + testRoom)
		if doubt, attempts := f.progress("room:" + testRoom); doubt || attempts != 0 {
			t.Fatalf("in doubt: %v, attempts: %d", doubt, attempts)
		}
		f.as.Wake()
	}
	f.waitLater("room:" + testRoom)
	f.mustPut("2", events(messageIn("!other:hs.test", "$o")))
	if got := f.rec.waitEvents(5); got[4].ID != "$o" {
		t.Errorf("%s was handled instead of the other room", got[4].ID)
	}
	refuse = false
	f.as.Wake()
	f.idle()
	if got := f.rec.ids(); got != "$1 $1 $1 $1 $o $1 $2" || len(f.deadLetters()) != 0 {
		t.Errorf("handled %s, dead letters %+v", got, f.deadLetters())
	}
	for _, ev := range f.rec.events {
		if ev.Attempts != 0 || ev.InDoubt {
			t.Errorf("%s came with %d attempts, in doubt: %v", ev.ID, ev.Attempts, ev.InDoubt)
		}
	}
}

func TestLater_WakeWhileTheHandlerRuns_IsNotMissed(t *testing.T) {
	f := newFixture(t, nil)
	tries := 0
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) {
		if tries++; tries == 1 {
			f.as.Wake()
			return nil, Later(errTest)
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1")))
	f.idle() // would take 30 s
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
}

func TestLater_AndPermanent_IsPermanent(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { return nil, Permanent(Later(errTest)) }
	f.mustPut("1", events(message("$1")))
	f.idle()
	if len(f.deadLetters()) != 1 {
		t.Errorf("%+v", f.deadLetters())
	}
	if Later(nil) != nil {
		t.Error("no error became one")
	}
}
