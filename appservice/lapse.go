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
	// lapseMargin is how long before the homeserver's last sign of life something may have happened that it had not begun to send.
	lapseMargin = time.Minute
	// lapseSetting is since when is to be looked, as long as nobody has.
	lapseSetting = "appservice.lapse"
	// countedBelow: some homeservers' transaction IDs are times or hashes, which are greater.
	countedBelow = 1_000_000_000
)

// lapses is since when the homeserver may have forgotten to send what happened.
type lapses struct {
	wake chan struct{}
	*settling

	mu      sync.Mutex
	watched bool      // else nobody looks
	since   time.Time // from when on is to be looked; zero: there is nothing to look at
	looking bool
	number  int       // of the newest transaction
	contact time.Time // when a transaction was last taken
}

func newLapses(server string, reach func(context.Context) error) *lapses {
	return &lapses{wake: make(chan struct{}, 1), settling: newSettling(server, reach)}
}

// watch says that somebody looks.
func (l *lapses) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = true
}

// add has what happened from since on looked at.
func (l *lapses) add(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.watched {
		return
	}
	if l.since.IsZero() || since.Before(l.since) {
		l.since = since
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pending is what is to be looked at; with take somebody does so now.
func (l *lapses) pending(take bool) (since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since = l.since
	if take {
		l.since, l.looking = time.Time{}, true
	}
	return since
}

func (l *lapses) looked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looking = false
}

func (l *lapses) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looking || !l.since.IsZero()
}

// comes notes that a transaction with this ID has begun to come, and looks at its number.
func (l *lapses) comes(txnID string) {
	l.settling.comes()
	n, err := strconv.Atoi(txnID)
	if err != nil || n >= countedBelow {
		return
	}
	l.mu.Lock()
	again, contact := n < l.number, l.contact
	l.number = n
	l.mu.Unlock()
	if again && !contact.IsZero() {
		l.add(contact.Add(-lapseMargin))
	}
}

// went notes what became of a transaction: t when it was taken; with brokenOff nobody waits for the answer.
func (l *lapses) went(t *store.Transaction, brokenOff bool) {
	if brokenOff {
		l.add(time.Now().Add(-lapseMargin))
	}
	if t != nil {
		l.mu.Lock()
		l.contact = time.Now()
		l.mu.Unlock()
	}
	l.settling.went(t, brokenOff)
}

// watchLapses tells the handler. What it is to be told is in the store until it has looked.
func (as *AppService) watchLapses(ctx context.Context, handler LapseHandler) {
	l := as.lapses
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		since := l.pending(false)
		if since.IsZero() {
			continue
		}
		as.noteLapse(ctx, since)
		err := l.settled(ctx)
		since = l.pending(true)
		if err == nil {
			as.noteLapse(ctx, since) // an earlier time may have come meanwhile, or the store may have failed
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			handler.Lapse(ctx, since)
		default:
			as.log.Debug().Err(err).Msg("It cannot be known when the homeserver has sent everything that it has, and so nothing is looked for that it may have forgotten")
		}
		if ctx.Err() != nil {
			return
		}
		if err := as.putLapse(ctx, l.pending(false)); err != nil && ctx.Err() == nil {
			as.log.Warn().Err(err).Msg("That what the homeserver forgot was looked for is not written down; it is looked for again at the next start")
		}
		l.looked()
	}
}

// reach has the homeserver call back, and Synapse send at once what has failed before.
func (as *AppService) reach(ctx context.Context) error {
	_, err := as.Ping(ctx)
	return err
}

func (as *AppService) noteLapse(ctx context.Context, since time.Time) {
	if err := as.putLapse(ctx, since); err != nil && ctx.Err() == nil {
		as.log.Warn().Err(err).Msg("That the homeserver may have forgotten to send something is not written down; if the bridge ends now, it is not looked for")
	}
}

func (as *AppService) putLapse(ctx context.Context, since time.Time) error {
	var value []byte
	if !since.IsZero() {
		value = strconv.AppendInt(nil, since.UnixMilli(), 10)
	}
	return as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error { return tx.PutSetting(lapseSetting, value) })
}

// startLapses has looked at what happened since the last process took something, or since one did that has not looked.
func (as *AppService) startLapses(ctx context.Context) error {
	handler, ok := as.cfg.Handler.(LapseHandler)
	if !ok {
		return nil
	}
	as.lapses.watch()
	value, err := as.store.Setting(ctx, lapseSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read since when the homeserver may have forgotten something: %w", err)
	}
	if ms, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		as.lapses.add(time.UnixMilli(ms))
	}
	var last time.Time
	err = as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
		if last = tx.LastTaken(); last.IsZero() || value != nil {
			return nil
		}
		// At once: what comes in from now on is newer than what this process is to look at.
		return tx.PutSetting(lapseSetting, strconv.AppendInt(nil, last.Add(-lapseMargin).UnixMilli(), 10))
	})
	if err != nil {
		return fmt.Errorf("write since when the homeserver may have forgotten something: %w", err)
	}
	if !last.IsZero() {
		as.lapses.add(last.Add(-lapseMargin))
	}
	as.routines.Go(func() { as.watchLapses(as.runCtx, handler) })
	return nil
}

func (l *lapses) collector(prefix string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "lapse_open", Help: "1 while rooms are to be looked through for what the homeserver has forgotten to send.",
	}, func() float64 {
		if l.isOpen() {
			return 1
		}
		return 0
	})
}
