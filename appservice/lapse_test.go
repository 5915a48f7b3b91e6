package appservice

import (
	"context"
	"errors"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// lapseRecorder hands on what it is told of lapses.
type lapseRecorder struct {
	*recorder
	told chan time.Time
}

func (l lapseRecorder) Lapse(ctx context.Context, since time.Time) {
	select {
	case l.told <- since:
	case <-ctx.Done():
	}
}

// newLapseFixture makes one in which nobody waits before the handler is told.
func newLapseFixture(t *testing.T, room int) (*fixture, lapseRecorder, func(*Config)) {
	g := lapseRecorder{told: make(chan time.Time, room)}
	with := func(c *Config) {
		g.recorder = c.Handler.(*recorder)
		c.Handler = g
	}
	f := newFixture(t, nil, with)
	f.stop()
	f.prepare = func(as *AppService) {
		as.lapses.first, as.lapses.quiet = 0, 0
		as.lapses.reach = func(context.Context) error { return nil }
	}
	f.start(with)
	return f, g, with
}

// next waits for what the handler is told.
func (l lapseRecorder) next(t *testing.T) (since time.Time) {
	t.Helper()
	select {
	case since = <-l.told:
	case <-time.After(time.Minute):
		t.Fatal("the handler is told of no lapse")
	}
	return since
}

func near(at, want time.Time) bool { return at.Sub(want).Abs() < 30*time.Second }

func (f *fixture) lapseSetting() string {
	f.t.Helper()
	value, err := f.store.Setting(context.Background(), lapseSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		f.t.Fatal(err)
	}
	return string(value)
}

func TestLapse_TransactionsAreCountedFromALowerNumber_TheHandlerIsTold(t *testing.T) {
	f, g, _ := newLapseFixture(t, 10)
	for _, txnID := range []string{"1796040000002", "1796040000001", "hash", "4", "5", "5"} {
		f.mustPut(txnID, events(message("$"+txnID)))
	}
	if f.as.lapses.isOpen() {
		t.Error("there is a lapse before the number has fallen")
	}
	f.mustPut("1", events(message("$anew")))
	if since := g.next(t); !near(since, time.Now().Add(-lapseMargin)) {
		t.Errorf("the lapse is from %v", since)
	}
}

func TestLapse_ATransactionIsBrokenOff_TheHandlerIsTold(t *testing.T) {
	f, g, _ := newLapseFixture(t, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "PUT", "/_matrix/app/v1/transactions/1", strings.NewReader(events(message("$1"))))
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	f.as.ServeHTTP(httptest.NewRecorder(), req)
	if since := g.next(t); !near(since, time.Now().Add(-lapseMargin)) {
		t.Errorf("the lapse is from %v", since)
	}
}

func TestLapse_TheHomeserverHasNoPing_NobodyIsToldAndNothingIsOpen(t *testing.T) {
	f, g, _ := newLapseFixture(t, 10)
	f.as.lapses.reach = func(context.Context) error { return ErrPingUnsupported }
	f.as.lapses.add(time.Now())
	for f.as.lapses.isOpen() || f.lapseSetting() != "" {
		time.Sleep(time.Millisecond)
	}
	if len(g.told) != 0 {
		t.Error("the handler was told")
	}
}

// While the bridge was away the homeserver may have ended as well.
func TestLapse_AfterAStart_TheHandlerIsToldFromBeforeTheLastTransactionOn(t *testing.T) {
	f, g, with := newLapseFixture(t, 10)
	if f.as.lapses.isOpen() {
		t.Error("there is a lapse at the very first start")
	}
	f.mustPut("1", events(message("$1")))
	now := time.Now()
	f.crash(with)
	if since := g.next(t); !near(since, now.Add(-lapseMargin)) {
		t.Errorf("the lapse is from %v", since)
	}
}

func TestLapse_TheProcessEndsBeforeAnybodyHasLooked_TheNextIsToldFromTheSameTimeOn(t *testing.T) {
	f, g, with := newLapseFixture(t, 10)
	f.mustPut("1", events(message("$1")))
	since := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	f.as.lapses.add(since)
	g.next(t)
	for f.as.lapses.isOpen() {
		time.Sleep(time.Millisecond)
	}
	if left := f.lapseSetting(); left != "" {
		t.Errorf("after somebody has looked the store still says %s", left)
	}
	f.as.lapses.first = time.Hour
	f.as.lapses.add(since)
	for began := time.Now(); f.lapseSetting() == ""; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the store does not know of the lapse")
		}
	}
	f.crash(with)
	if again := g.next(t); !again.Equal(since) {
		t.Errorf("the lapse is from %v, and not %v", again, since)
	}
}

// What is found out meanwhile, or could not be written down at first, is in the store before anybody begins to look: that takes long.
func TestLapse_AnEarlierTimeComesWhileTheHomeserverSettles_TheStoreHasItWhileSomebodyLooks(t *testing.T) {
	f, g, with := newLapseFixture(t, 0)
	settle := make(chan struct{})
	f.as.lapses.reach = func(context.Context) error { <-settle; return nil }
	at := time.Now().Truncate(time.Millisecond)
	f.as.lapses.add(at)
	for began := time.Now(); f.lapseSetting() == ""; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the store does not know of the lapse")
		}
	}
	f.as.lapses.add(at.Add(-time.Hour))
	close(settle)
	want := strconv.FormatInt(at.Add(-time.Hour).UnixMilli(), 10)
	for began := time.Now(); f.lapseSetting() != want; time.Sleep(time.Millisecond) { // somebody looks, and has not ended
		if time.Since(began) > 10*time.Second {
			t.Fatalf("somebody looks since %s, and the store says %s", want, f.lapseSetting())
		}
	}
	f.crash(with)
	if again := g.next(t); !again.Equal(at.Add(-time.Hour)) {
		t.Errorf("the next process is told of %v, and not of %v", again, at.Add(-time.Hour))
	}
}

func TestLapse_TheHomeserverWasAway_ItIsFromTheLastAnswerOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []time.Time
		a := absence{returned: func(last time.Time) { told = append(told, last) }}
		a.answered(200, true)
		last := time.Now()
		a.failed()
		time.Sleep(absentFor)
		a.answered(200, true)
		a.failed() // one broken connection
		a.answered(200, true)
		if len(told) != 1 || !told[0].Equal(last) {
			t.Errorf("told of %v, and it answered last at %v", told, last)
		}
	})
}

func TestLapse_OneIsBeingLookedAt_WhatComesMeanwhileIsOneLapseAfterIt(t *testing.T) {
	f, g, _ := newLapseFixture(t, 0)
	at := time.Now().Truncate(time.Millisecond)
	f.as.lapses.add(at)
	for f.as.lapses.pending(false) != (time.Time{}) {
		time.Sleep(time.Millisecond)
	}
	f.as.lapses.add(at.Add(time.Minute))
	f.as.lapses.add(at.Add(-time.Minute))
	g.next(t)
	if since := g.next(t); !since.Equal(at.Add(-time.Minute)) {
		t.Errorf("what waited is from %v", since)
	}
}
