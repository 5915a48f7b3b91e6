package appservice

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// gapRecorder hands on what it is told of gaps.
type gapRecorder struct {
	*recorder
	told chan time.Time
}

func (g gapRecorder) Gap(_ context.Context, since time.Time) { g.told <- since }

// newGapFixture makes one in which nobody waits before the handler is told.
func newGapFixture(t *testing.T, room int) (*fixture, gapRecorder, func(*Config)) {
	g := gapRecorder{told: make(chan time.Time, room)}
	with := func(c *Config) {
		g.recorder = c.Handler.(*recorder)
		c.Handler = g
	}
	f := newFixture(t, nil, with)
	f.stop()
	f.prepare = func(as *AppService) { as.gaps.settle, as.gaps.patience = 0, 0 }
	f.start(with)
	return f, g, with
}

// next waits for what the handler is told.
func (g gapRecorder) next(t *testing.T) (since time.Time) {
	t.Helper()
	select {
	case since = <-g.told:
	case <-time.After(time.Minute):
		t.Fatal("the handler is told of no gap")
	}
	return since
}

func near(at, want time.Time) bool { return at.Sub(want).Abs() < 30*time.Second }

func (f *fixture) gapSetting() string {
	f.t.Helper()
	value, err := f.store.Setting(context.Background(), gapSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		f.t.Fatal(err)
	}
	return string(value)
}

func TestGap_TransactionsAreCountedFromALowerNumber_TheHandlerIsTold(t *testing.T) {
	f, g, _ := newGapFixture(t, 10)
	for _, txnID := range []string{"1796040000002", "1796040000001", "hash", "4", "5", "5"} {
		f.mustPut(txnID, events(message("$"+txnID)))
	}
	if f.as.gaps.isOpen() {
		t.Error("there is a gap before the number has fallen")
	}
	f.mustPut("1", events(message("$anew")))
	if since := g.next(t); !near(since, time.Now().Add(-gapMargin)) {
		t.Errorf("the gap is from %v", since)
	}
}

func TestGap_ATransactionIsBrokenOff_TheHandlerIsTold(t *testing.T) {
	f, g, _ := newGapFixture(t, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "PUT", "/_matrix/app/v1/transactions/1", strings.NewReader(events(message("$1"))))
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	f.as.ServeHTTP(httptest.NewRecorder(), req)
	if since := g.next(t); !near(since, time.Now().Add(-gapMargin)) {
		t.Errorf("the gap is from %v", since)
	}
}

// While the bridge was away the homeserver may have ended as well.
func TestGap_AfterAStart_TheHandlerIsToldFromBeforeTheLastTransactionOn(t *testing.T) {
	f, g, with := newGapFixture(t, 10)
	if f.as.gaps.isOpen() {
		t.Error("there is a gap at the very first start")
	}
	f.mustPut("1", events(message("$1")))
	now := time.Now()
	f.crash(with)
	if since := g.next(t); !near(since, now.Add(-gapMargin)) {
		t.Errorf("the gap is from %v", since)
	}
}

func TestGap_TheProcessEndsBeforeAnybodyHasLooked_TheNextIsToldFromTheSameTimeOn(t *testing.T) {
	f, g, with := newGapFixture(t, 10)
	f.mustPut("1", events(message("$1")))
	since := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	f.as.gaps.add(since)
	g.next(t)
	for f.as.gaps.isOpen() {
		time.Sleep(time.Millisecond)
	}
	if left := f.gapSetting(); left != "" {
		t.Errorf("after somebody has looked the store still says %s", left)
	}
	f.as.gaps.settle = time.Hour
	f.as.gaps.add(since)
	for began := time.Now(); f.gapSetting() == ""; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the store does not know of the gap")
		}
	}
	f.crash(with)
	if again := g.next(t); !again.Equal(since) {
		t.Errorf("the gap is from %v, and not %v", again, since)
	}
}

// With the transactions that a homeserver has kept come the keys of their messages.
func TestGap_TransactionsCome_NobodyLooksBeforeTheyHaveCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGaps()
		began := time.Now()
		if !g.settled(t.Context()) || time.Since(began) != gapSettle {
			t.Errorf("while nothing comes somebody looks after %v", time.Since(began))
		}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					g.took()
				}
			}
		}()
		began = time.Now()
		if !g.settled(t.Context()) || time.Since(began) < gapSettle+gapPatience || time.Since(began) > 2*gapPatience {
			t.Errorf("while transactions come all the time somebody looks after %v", time.Since(began))
		}
		close(stop)
	})
}

func TestGap_TheHomeserverWasAway_ItIsFromTheLastAnswerOn(t *testing.T) {
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

func TestGap_OneIsBeingLookedAt_WhatComesMeanwhileIsOneGapAfterIt(t *testing.T) {
	f, g, _ := newGapFixture(t, 0)
	at := time.Now().Truncate(time.Millisecond)
	f.as.gaps.add(at)
	for f.as.gaps.pending(false) != (time.Time{}) {
		time.Sleep(time.Millisecond)
	}
	f.as.gaps.add(at.Add(time.Minute))
	f.as.gaps.add(at.Add(-time.Minute))
	g.next(t)
	if since := g.next(t); !since.Equal(at.Add(-time.Minute)) {
		t.Errorf("what waited is from %v", since)
	}
}
