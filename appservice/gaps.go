package appservice

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trestle-bridge/trestle/store"
)

// A homeserver that ends without warning may never send what happened just before: Synapse notes how far it has come as soon as events are in its memory,
// and before the transaction with them is in its database. Nobody tells the bridge. So it looks for itself, whenever the homeserver may have been started
// again: after it could not be reached, after it broke a transaction off, when it counts its transactions from a lower number, and after each start of the bridge's own.

const (
	// gapMargin is how long before the homeserver's last sign of life something may have happened that it had not begun to send.
	gapMargin = time.Minute
	// gapAfter: while the bridge is not there, the homeserver may end as well. What is later than this after the bridge's last sign of the homeserver, it has
	// put into transactions by then.
	gapAfter = 2 * time.Minute
	// gapPause is between two looks: each costs requests for all rooms.
	gapPause = 10 * time.Second
	// contactEvery is how often it is written down that the homeserver sends something.
	contactEvery   = 30 * time.Second
	contactSetting = "appservice.contact"
	// countedBelow: some homeservers' transaction IDs are times or hashes, which are greater.
	countedBelow = 1_000_000_000
)

// gaps is when the homeserver may have forgotten to send what happened.
type gaps struct {
	wake chan struct{}

	mu           sync.Mutex
	watched      bool      // else nobody looks
	since, until time.Time // what is to be looked at; a zero until is now
	open         bool      // there is something to look at, or somebody is looking
	number       int       // of the newest transaction
	contact      time.Time // when a transaction was last taken
	written      time.Time // and what the store knows of that
}

func newGaps() *gaps { return &gaps{wake: make(chan struct{}, 1)} }

// add has the time from since on, up to until or to now, looked at.
func (g *gaps) add(since, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.watched:
		return
	case g.since.IsZero():
		g.since, g.until = since, until
	default:
		if since.Before(g.since) {
			g.since = since
		}
		if until.IsZero() || until.After(g.until) && !g.until.IsZero() {
			g.until = until
		}
	}
	g.open = true
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *gaps) take() (since, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	since, until = g.since, g.until
	g.since = time.Time{}
	return since, until
}

func (g *gaps) looked() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = !g.since.IsZero()
}

func (g *gaps) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// numbered looks at the number of a transaction that has come.
func (g *gaps) numbered(txnID string) {
	n, err := strconv.Atoi(txnID)
	if err != nil || n >= countedBelow {
		return
	}
	g.mu.Lock()
	again, contact := n < g.number, g.contact
	g.number = n
	g.mu.Unlock()
	if again && !contact.IsZero() {
		g.add(contact.Add(-gapMargin), time.Time{})
	}
}

// brokenOff: whoever sent a transaction does not wait for the answer.
func (g *gaps) brokenOff() { g.add(time.Now().Add(-gapMargin), time.Time{}) }

// due says whether a transaction that is being taken in is to be written down as a sign of life.
func (g *gaps) due(at time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.watched && at.Sub(g.written) >= contactEvery
}

func (g *gaps) took(at time.Time, written bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.contact = at
	if written {
		g.written = at
	}
}

// watchGaps tells the handler.
func (as *AppService) watchGaps(ctx context.Context, handler GapHandler) {
	for {
		select {
		case <-as.gaps.wake:
		case <-ctx.Done():
			return
		}
		if since, until := as.gaps.take(); !since.IsZero() {
			handler.Gap(ctx, since, until)
		}
		as.gaps.looked()
		select {
		case <-time.After(gapPause):
		case <-ctx.Done():
			return
		}
	}
}

// startGaps has the time around the end of the last process looked at.
func (as *AppService) startGaps(ctx context.Context) error {
	handler, ok := as.cfg.Handler.(GapHandler)
	if !ok {
		return nil
	}
	as.gaps.watched = true
	value, err := as.store.Setting(ctx, contactSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read when the homeserver last sent something: %w", err)
	}
	if ms, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		contact := time.UnixMilli(ms)
		as.gaps.add(contact.Add(-gapMargin), contact.Add(gapAfter))
	}
	as.absence.returned = func(last time.Time) { as.gaps.add(last.Add(-gapMargin), time.Time{}) }
	as.routines.Go(func() { as.watchGaps(as.runCtx, handler) })
	return nil
}

func putContact(tx *store.Tx, at time.Time) error {
	return tx.PutSetting(contactSetting, strconv.AppendInt(nil, at.UnixMilli(), 10))
}

func (g *gaps) collector(prefix string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "gap_open", Help: "1 while rooms are looked through for what the homeserver has forgotten to send.",
	}, func() float64 {
		if g.isOpen() {
			return 1
		}
		return 0
	})
}
