package appservice

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

const (
	batchSize  = 64                    // events of one lane that may share a commit
	batchTime  = 20 * time.Millisecond // and how long the first of them waits for the others at most
	maxPanics  = 5                     // attempts of an event that panics
	maxCrashes = 5                     // and of one that ends the process
	maxCause   = 1000                  // bytes of an error that are kept
	effectPass = 5                     // attempts to commit effects that fail by themselves
)

// backoff is the wait after a number of failed attempts: 1 s, doubling, at most 5 min.
func backoff(attempts int) time.Duration {
	return min(time.Second<<min(max(attempts-1, 0), 20), 5*time.Minute)
}

// waited is how long an event has been held by its backoff before its attempts were that many. It counts waiting, not
// the time that the bridge was off, so that an outage of the bridge itself costs no event its chances.
func waited(attempts int) (sum time.Duration) {
	for i := 1; i < attempts; i++ {
		if d := backoff(i); d < 5*time.Minute {
			sum += d
		} else {
			return sum + time.Duration(attempts-i)*d
		}
	}
	return sum
}

// step is an event that its handler has ended, and whose effects are not committed yet.
type step struct {
	ref     store.Ref
	ev      *Event
	effects []Effect
	silent  bool // to be buried without asking the handler
}

// batch is one turn of a worker with a lane.
type batch struct {
	as        *AppService
	ctx       context.Context
	lane      string
	given     int // events of this turn
	steps     []step
	since     time.Time // when the first of steps ended
	committed int       // how many events of this turn are over, durably
	culprit   *effectError
}

// effectError says which step's effects cannot be committed.
type effectError struct {
	step int
	err  error
}

func (e *effectError) Error() string { return "effects: " + e.err.Error() }
func (e *effectError) Unwrap() error { return e.err }

// panicError is what a handler's panic is turned into.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func isPanic(err error) bool {
	var p panicError
	return errors.As(err, &p)
}

// causeText is what is kept of an error.
func causeText(err error) string {
	text := err.Error()
	return storable(text[:min(len(text), maxCause)])
}

// work takes up to batchSize events of a lane through the handler. Those that only have effects share a commit.
func (as *AppService) work(ctx context.Context, lane string, refs []store.Ref) (done int, retryAfter time.Duration) {
	if as.fatalError() != nil {
		return 0, time.Minute // nothing can be committed any more: touch nothing
	}
	known := as.heads.get(lane)
	if wait := time.Until(known.nextAt); wait > 0 {
		as.replay.ended(lane, 0, true)
		return 0, wait
	}
	if wait := as.replay.pausing(known); wait > 0 {
		return 0, wait // it has not been tried: the replay waits for it
	}
	if waiting, _ := as.lanes.Len(); waiting > longBacklog {
		if as.abreast.ahead(refs[0]) {
			return 0, 0
		}
		refs = nearby(refs)
	}
	as.later.forget(lane)
	end, careful := func() {}, as.replay.careful.Load()
	if careful {
		var err error
		if refs, end, err = as.replay.turn(ctx, lane, refs); err != nil {
			as.log.Warn().Err(err).Str("lane", lane).Msg("The careful replay waits for the store")
			return 0, time.Second
		}
	}
	defer end()
	b := as.shared.fresh()
	b.as, b.ctx, b.lane, b.given = as, ctx, lane, len(refs)
	for _, ref := range refs {
		if len(b.steps) > 0 && time.Since(b.since) > batchTime {
			if err := b.flush(nil); err != nil {
				return b.over(b.settle())
			}
		}
		if ctx.Err() != nil {
			break
		}
		if retryAfter, ok := b.one(ref); !ok {
			return b.over(b.committed, retryAfter)
		}
	}
	if len(b.steps) > 0 && !careful {
		as.shared.add(b)
		return lanes.Pending, 0
	}
	return b.end()
}

// over tells the replay how a turn ended.
func (b *batch) over(done int, retryAfter time.Duration) (int, time.Duration) {
	b.as.replay.ended(b.lane, done, done < b.given && retryAfter > 0)
	return done, retryAfter
}

// end commits what is left of a turn.
func (b *batch) end() (done int, retryAfter time.Duration) {
	if err := b.flush(nil); err != nil {
		return b.over(b.settle())
	}
	return b.over(b.committed, 0)
}

// one takes one event through the handler. ok is false when the turn is over.
func (b *batch) one(ref store.Ref) (retryAfter time.Duration, ok bool) {
	el, err := b.as.store.Element(b.ctx, ref)
	if errors.Is(err, store.ErrNotFound) {
		// Its row is gone, so it was finished. There is nothing left to do but to go on.
		b.as.log.Error().Str("lane", b.lane).Int64("row", ref.Seq).Msg("An event is no longer in the store")
		if err := b.flush(nil); err != nil {
			return b.stop()
		}
		b.committed++
		return 0, true
	} else if err != nil {
		b.as.log.Error().Err(err).Str("lane", b.lane).Msg("An event cannot be read from the store")
		if err := b.flush(nil); err != nil {
			return b.stop()
		}
		return time.Second, false
	}
	state := head{}
	if len(b.steps) == 0 && b.committed == 0 {
		state = b.as.heads.get(b.lane)
	}
	if state.isCulprit() {
		return b.blame(ref, el, state)
	}
	s := step{ref: ref, ev: newEvent(el)}
	s.ev.Attempts, s.ev.InDoubt = state.attempts, state.doubt
	s.ev.turn, s.ev.ref = b, ref
	wakes := b.as.later.count()
	s.effects, err = b.as.handle(b.ctx, s.ev)
	s.ev.turn = nil
	if b.culprit != nil || b.as.fatalError() != nil {
		return b.stop() // Doubt failed for the sake of an event before this one
	}
	if err == nil {
		if own := b.as.ownChange(s.ev); own != nil {
			s.effects = append(s.effects, own)
		}
	}
	switch {
	case s.ev.decodeErr != nil:
		err = s.ev.decodeErr
	case err == nil:
		if len(b.steps) == 0 {
			b.since = time.Now()
		}
		b.steps = append(b.steps, s)
		if s.ev.doubted { // its progress must not wait for anything
			if err := b.flush(nil); err != nil {
				return b.stop()
			}
		}
		return 0, true
	case b.ctx.Err() != nil:
		// The appservice stops: this was no attempt. A mark of doubt stays only where the handler does not know better.
		if flushErr := b.flush(nil); flushErr == nil && !IsPermanent(err) && !isPanic(err) {
			b.postpone(s, err)
		}
		return 0, false
	}
	if err := b.flush(nil); err != nil {
		return b.stop()
	}
	if wait := LaterWait(err); wait > 0 {
		b.as.log.Debug().Err(err).Str("lane", b.lane).Stringer("event_id", s.ev.ID).Msg("An event has to wait")
		b.postpone(s, err)
		return b.as.later.add(b.lane, wakes, wait), false
	}
	return b.fail(s, err)
}

// doubt commits the steps before an event, and that it is under way.
func (b *batch) doubt(ev *Event) error {
	if err := b.flush(func(tx *store.Tx) error { return tx.Doubt(b.lane, ev.ref) }); err != nil {
		if b.culprit != nil && b.culprit.step == len(b.steps) {
			b.culprit = nil // the mark itself: this event fails, not one before it
		}
		return fmt.Errorf("mark %s in doubt: %w", ev.ID, err)
	}
	ev.doubted = true
	return nil
}

// handle calls the handler and turns a panic into an error.
func (as *AppService) handle(ctx context.Context, ev *Event) (effects []Effect, err error) {
	defer func() {
		if v := recover(); v != nil {
			as.log.Error().Str("lane", ev.Lane).Stringer("event_id", ev.ID).Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).
				Msg("A handler panicked")
			effects, err = nil, panicError{v}
		}
	}()
	return as.cfg.Handler.HandleEvent(ctx, ev)
}

// stop ends a turn in which a commit failed.
func (b *batch) stop() (time.Duration, bool) {
	_, retryAfter := b.settle()
	return retryAfter, false
}

// settle deals with a failed flush: what came before the culprit is committed, the culprit itself failed, and what came
// after is handled again. Without a culprit the store is gone or the appservice stops.
func (b *batch) settle() (done int, retryAfter time.Duration) {
	culprit := b.culprit
	if culprit == nil {
		return b.committed, time.Minute
	}
	bad := b.steps[culprit.step]
	b.steps, b.culprit = b.steps[:culprit.step], nil
	if err := b.flush(nil); err != nil {
		return b.committed, time.Second
	}
	err := error(culprit)
	if bad.ev.doubted {
		// What it did on the network is done: doing it again would double it.
		err = Permanent(fmt.Errorf("it was delivered, but what came of it could not be written: %w", culprit))
	}
	retryAfter, _ = b.fail(bad, err)
	return b.committed, retryAfter
}

// flush commits the effects and the progress of the steps, and extra, all or nothing. It goes on trying while the store
// fails, because to run the handlers again would do again what they did. It gives up when an effect fails for reasons of
// its own (then culprit is set), when the store is lost for good, or when the appservice stops.
func (b *batch) flush(extra Effect) error {
	if len(b.steps) == 0 && extra == nil {
		return nil
	}
	for try := 1; ; try++ {
		var bad *effectError
		err := b.as.store.Commit(b.as.commitCtx, b.as.epoch, func(tx *store.Tx) error {
			bad = b.apply(tx, extra)
			if bad != nil {
				return bad
			}
			return nil
		})
		if err == nil {
			b.done()
			return nil
		}
		switch {
		case isFinal(err):
			b.as.setFatal(err)
			return err
		case bad != nil && try >= effectPass && b.as.storeWorks():
			b.culprit = bad
			return err
		case b.ctx.Err() != nil:
			return err
		}
		b.as.log.Warn().Err(err).Str("lane", b.lane).Msg("Progress cannot be written, and is tried again")
		select {
		case <-b.ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond << min(try, 7)):
		}
	}
}

// storeWorks tells effects that fail by themselves from a store that takes no writes at the moment.
func (as *AppService) storeWorks() bool {
	return as.store.Commit(as.commitCtx, as.epoch, func(tx *store.Tx) error {
		return tx.PutSetting("appservice.probe", []byte{1})
	}) == nil
}

// apply runs inside of a commit.
func (b *batch) apply(tx *store.Tx, extra Effect) *effectError {
	for i, s := range b.steps {
		for _, effect := range s.effects {
			if err := effect(tx); err != nil {
				return &effectError{i, err}
			}
		}
		// One mark covers all events of the lane in the same row up to it.
		if i+1 == len(b.steps) || b.steps[i+1].ref.Seq != s.ref.Seq {
			if err := tx.Finish(b.lane, s.ref); err != nil {
				return &effectError{i, err}
			}
		}
	}
	if extra != nil {
		if err := extra(tx); err != nil {
			return &effectError{len(b.steps), err}
		}
	}
	return nil
}

// done is called when the steps are durable.
func (b *batch) done() {
	for _, s := range b.steps {
		b.as.metrics.event(s.ev.Kind, "done")
	}
	if len(b.steps) > 0 {
		b.as.heads.set(b.lane, head{})
	}
	b.committed += len(b.steps)
	clear(b.steps)
	b.steps = b.steps[:0]
}
