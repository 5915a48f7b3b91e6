package appservice

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gapRecorder hands on what it is told of gaps.
type gapRecorder struct {
	*recorder
	told chan [2]time.Time
}

func (g gapRecorder) Gap(_ context.Context, since, until time.Time) {
	g.told <- [2]time.Time{since, until}
}

func withGaps(g gapRecorder) func(*Config) {
	return func(c *Config) {
		g.recorder = c.Handler.(*recorder)
		c.Handler = g
	}
}

// next waits for what the handler is told.
func (g gapRecorder) next(t *testing.T) (since, until time.Time) {
	t.Helper()
	select {
	case gap := <-g.told:
		return gap[0], gap[1]
	case <-time.After(time.Minute):
		t.Fatal("the handler is told of no gap")
		return
	}
}

func near(at, want time.Time) bool { return at.Sub(want).Abs() < 30*time.Second }

func TestGap_TransactionsAreCountedFromALowerNumber_TheHandlerIsTold(t *testing.T) {
	g := gapRecorder{told: make(chan [2]time.Time, 10)}
	f := newFixture(t, nil, withGaps(g))
	for _, txnID := range []string{"1796040000002", "1796040000001", "hash", "4", "5", "5"} {
		f.mustPut(txnID, events(message("$"+txnID)))
	}
	if f.as.gaps.isOpen() {
		t.Error("there is a gap before the number has fallen")
	}
	f.mustPut("1", events(message("$anew")))
	if since, until := g.next(t); !near(since, time.Now().Add(-gapMargin)) || !until.IsZero() {
		t.Errorf("the gap is from %v until %v", since, until)
	}
}

func TestGap_ATransactionIsBrokenOff_TheHandlerIsTold(t *testing.T) {
	g := gapRecorder{told: make(chan [2]time.Time, 10)}
	f := newFixture(t, nil, withGaps(g))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, "PUT", "/_matrix/app/v1/transactions/1", strings.NewReader(events(message("$1"))))
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	f.as.ServeHTTP(httptest.NewRecorder(), req)
	if since, until := g.next(t); !near(since, time.Now().Add(-gapMargin)) || !until.IsZero() {
		t.Errorf("the gap is from %v until %v", since, until)
	}
}

// While the bridge was away the homeserver may have ended as well.
func TestGap_AfterAStart_TheHandlerIsToldOfTheTimeAroundTheLastTransaction(t *testing.T) {
	g := gapRecorder{told: make(chan [2]time.Time, 10)}
	f := newFixture(t, nil, withGaps(g))
	if f.as.gaps.isOpen() {
		t.Error("there is a gap at the very first start")
	}
	f.mustPut("1", events(message("$1")))
	now := time.Now()
	f.crash(withGaps(g))
	if since, until := g.next(t); !near(since, now.Add(-gapMargin)) || !near(until, now.Add(gapAfter)) {
		t.Errorf("the gap is from %v until %v", since, until)
	}
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
	g := gapRecorder{told: make(chan [2]time.Time)}
	f := newFixture(t, nil, withGaps(g))
	at := time.Now()
	f.as.gaps.add(at, at)
	for waits := true; waits; time.Sleep(time.Millisecond) {
		f.as.gaps.mu.Lock()
		waits = !f.as.gaps.since.IsZero()
		f.as.gaps.mu.Unlock()
	}
	f.as.gaps.add(at.Add(time.Minute), at.Add(2*time.Minute))
	f.as.gaps.add(at.Add(-time.Minute), at.Add(time.Minute))
	g.next(t)
	since, until := f.as.gaps.take()
	if !since.Equal(at.Add(-time.Minute)) || !until.Equal(at.Add(2*time.Minute)) {
		t.Errorf("what waits is from %v until %v", since, until)
	}
	f.as.gaps.add(since, until)
	f.as.gaps.add(since, time.Time{})
	f.as.gaps.add(since, until)
	if _, until = f.as.gaps.take(); !until.IsZero() {
		t.Errorf("one without an end ends at %v", until)
	}
}
