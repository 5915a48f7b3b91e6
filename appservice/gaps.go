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
	// gapSettle is how long after a sign somebody looks: by then a homeserver that has kept transactions has begun to send them, with the room keys
	// that belong to their messages. gapQuiet is how long none may have come, and gapPatience how long that is waited for.
	gapSettle   = 10 * time.Second
	gapQuiet    = 2 * time.Second
	gapPatience = time.Minute
	// gapSetting is since when is to be looked, as long as nobody has.
	gapSetting = "appservice.gap"
	// countedBelow: some homeservers' transaction IDs are times or hashes, which are greater.
	countedBelow = 1_000_000_000
)

// gaps is since when the homeserver may have forgotten to send what happened.
type gaps struct {
	wake             chan struct{}
	settle, patience time.Duration

	mu      sync.Mutex
	watched bool      // else nobody looks
	since   time.Time // from when on is to be looked; zero: there is nothing to look at
	looking bool
	number  int       // of the newest transaction
	contact time.Time // when a transaction was last taken
}

func newGaps() *gaps {
	return &gaps{wake: make(chan struct{}, 1), settle: gapSettle, patience: gapPatience}
}

// add has what happened from since on looked at.
func (g *gaps) add(since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.watched {
		return
	}
	if g.since.IsZero() || since.Before(g.since) {
		g.since = since
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// pending is what is to be looked at; with take somebody does so now.
func (g *gaps) pending(take bool) (since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	since = g.since
	if take {
		g.since, g.looking = time.Time{}, true
	}
	return since
}

func (g *gaps) looked() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looking = false
}

func (g *gaps) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.looking || !g.since.IsZero()
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
		g.add(contact.Add(-gapMargin))
	}
}

// brokenOff: whoever sent a transaction does not wait for the answer.
func (g *gaps) brokenOff() { g.add(time.Now().Add(-gapMargin)) }

// took notes that a transaction was taken.
func (g *gaps) took() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.contact = time.Now()
}

// sinceTaken is how long no transaction was taken.
func (g *gaps) sinceTaken() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.contact)
}

// settled waits until what the homeserver has kept has come; false: ctx has ended.
func (g *gaps) settled(ctx context.Context) bool {
	if !sleep(ctx, g.settle) {
		return false
	}
	for began := time.Now(); g.sinceTaken() < gapQuiet && time.Since(began) < g.patience; {
		if !sleep(ctx, gapQuiet/4) {
			return false
		}
	}
	return true
}

// watchGaps tells the handler. What it is to be told is in the store until it has looked.
func (as *AppService) watchGaps(ctx context.Context, handler GapHandler) {
	g := as.gaps
	for {
		select {
		case <-g.wake:
		case <-ctx.Done():
			return
		}
		since := g.pending(false)
		if since.IsZero() {
			continue
		}
		if err := as.putGap(ctx, since); err != nil && ctx.Err() == nil {
			as.log.Warn().Err(err).Msg("That the homeserver may have forgotten to send something is not written down; if the bridge ends now, it is not looked for")
		}
		if !g.settled(ctx) {
			return
		}
		since = g.pending(true)
		handler.Gap(ctx, since)
		if ctx.Err() != nil {
			return
		}
		if err := as.putGap(ctx, g.pending(false)); err != nil && ctx.Err() == nil {
			as.log.Warn().Err(err).Msg("That what the homeserver forgot was looked for is not written down; it is looked for again at the next start")
		}
		g.looked()
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (as *AppService) putGap(ctx context.Context, since time.Time) error {
	var value []byte
	if !since.IsZero() {
		value = strconv.AppendInt(nil, since.UnixMilli(), 10)
	}
	return as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error { return tx.PutSetting(gapSetting, value) })
}

// startGaps has looked at what happened since the last process took something, or since one did that has not looked.
func (as *AppService) startGaps(ctx context.Context) error {
	handler, ok := as.cfg.Handler.(GapHandler)
	if !ok {
		return nil
	}
	as.gaps.watched = true
	value, err := as.store.Setting(ctx, gapSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read since when the homeserver may have forgotten something: %w", err)
	}
	if ms, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		as.gaps.add(time.UnixMilli(ms))
	}
	var last time.Time
	err = as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
		if last = tx.LastTaken(); last.IsZero() || value != nil {
			return nil
		}
		// At once: what comes in from now on is newer than what this process is to look at.
		return tx.PutSetting(gapSetting, strconv.AppendInt(nil, last.Add(-gapMargin).UnixMilli(), 10))
	})
	if err != nil {
		return fmt.Errorf("write since when the homeserver may have forgotten something: %w", err)
	}
	if !last.IsZero() {
		as.gaps.add(last.Add(-gapMargin))
	}
	as.absence.returned = func(last time.Time) { as.gaps.add(last.Add(-gapMargin)) }
	as.routines.Go(func() { as.watchGaps(as.runCtx, handler) })
	return nil
}

func (g *gaps) collector(prefix string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "gap_open", Help: "1 while rooms are to be looked through for what the homeserver has forgotten to send.",
	}, func() float64 {
		if g.isOpen() {
			return 1
		}
		return 0
	})
}
