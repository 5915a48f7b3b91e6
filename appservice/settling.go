package appservice

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/trestle-bridge/trestle/store"
)

const (
	// settleFirst is how long after a sign of a lapse the homeserver is asked whether it reaches the bridge: one that was just started has other things to do.
	settleFirst = 10 * time.Second
	// settleQuiet is how long no transaction may have come: a homeserver that is behind sends one after the other, and Synapse what it
	// was refused after two seconds.
	settleQuiet = 4 * time.Second
	// settleAgain is after how long it is asked again: Synapse then sends at once what it would send after up to eight minutes.
	settleAgain = 30 * time.Second
)

// settling is whether a homeserver that was away, or to which the bridge was, has sent everything that it has: what is read before from a room's history it might be
// about to send, with the room keys that belong to it.
type settling struct {
	first, quiet time.Duration
	reach        func(context.Context) error // has the homeserver call the bridge
	local        string                      // what the IDs of the homeserver's own users end in

	mu       sync.Mutex
	waiting  bool
	underWay int       // transactions
	moved    time.Time // when one last came or was answered, or the homeserver was reached
	refused  bool      // whether the last was, and comes again
	newest   time.Time // when something was sent that has come while somebody waits
}

func newSettling(server string, reach func(context.Context) error) *settling {
	return &settling{first: settleFirst, quiet: settleQuiet, reach: reach, local: ":" + server}
}

// comes notes a transaction.
func (s *settling) comes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay++
}

// went notes what became of it: t when it was taken.
func (s *settling) went(t *store.Transaction, brokenOff bool) {
	s.mu.Lock()
	waiting := s.waiting
	s.underWay--
	s.moved, s.refused = time.Now(), t == nil && !brokenOff
	s.mu.Unlock()
	if t == nil || !waiting {
		return
	}
	newest := s.newestOf(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest.After(s.newest) {
		s.newest = newest
	}
}

// newestOf goes by the homeserver's own clock.
func (s *settling) newestOf(t *store.Transaction) (newest time.Time) {
	for i := range t.Elements {
		if t.Elements[i].Kind != store.KindPDU {
			continue
		}
		var ev struct {
			Sender    string `json:"sender"`
			Timestamp int64  `json:"origin_server_ts"`
		}
		if err := json.Unmarshal(t.Elements[i].Raw, &ev, exactNames); err != nil || !strings.HasSuffix(ev.Sender, s.local) {
			continue
		}
		if at := time.UnixMilli(ev.Timestamp); at.After(newest) {
			newest = at
		}
	}
	return newest
}

// reached begins to wait, or goes on.
func (s *settling) reached(waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waiting {
		s.newest = time.Time{}
	}
	s.waiting, s.moved = waiting, time.Now()
}

// sentSince says whether the homeserver has sent all: it is quiet, or sends what has happened since it was reached.
func (s *settling) sentSince(reached time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	quiet := s.underWay == 0 && time.Since(s.moved) >= s.quiet
	return !s.refused && (quiet || !s.newest.Before(reached))
}

// settled waits until the homeserver reaches the bridge and has sent what it has. The error is [ErrPingUnsupported], or that of ctx.
func (s *settling) settled(ctx context.Context) error {
	if !sleep(ctx, s.first) {
		return ctx.Err()
	}
	defer s.reached(false)
	var first time.Time // when it was reached
	for attempt := 1; ; attempt++ {
		err := s.reach(ctx)
		if errors.Is(err, ErrPingUnsupported) {
			return err
		}
		if err != nil {
			if !sleep(ctx, backoff(attempt)) {
				return ctx.Err()
			}
			continue
		}
		if first.IsZero() {
			first = time.Now()
		}
		s.reached(true)
		for again := time.Now().Add(settleAgain); time.Now().Before(again); {
			if s.sentSince(first) {
				return nil
			}
			if !sleep(ctx, s.quiet/8) {
				return ctx.Err()
			}
		}
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
