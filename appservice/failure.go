package appservice

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// fail writes down a failed attempt, or buries the event. ok says that the lane goes on at once.
func (b *batch) fail(s step, cause error) (retryAfter time.Duration, ok bool) {
	attempts := s.ev.Attempts + 1
	panicked, text := isPanic(cause), causeText(cause)
	log := b.as.log.With().Str("lane", b.lane).Stringer("event_id", s.ev.ID).Str("type", s.ev.Type).Int("attempts", attempts).Logger()
	if !IsPermanent(cause) && !(panicked && attempts >= maxPanics) && waited(attempts) < b.as.cfg.MaxAge {
		wait := backoff(attempts)
		log.Warn().Err(cause).Dur("wait", wait).Msg("An event failed and is tried again")
		b.as.metrics.event(s.ev.Kind, "retried")
		// A plain error says that nothing has left. What a handler did that panicked nobody knows, nor what was done
		// before this attempt, when the handler did not come to it again.
		doubt := s.ev.doubted && panicked || s.ev.InDoubt && !s.ev.doubted
		err := b.flush(func(tx *store.Tx) error {
			if err := tx.Attempt(b.lane, s.ref, text, time.Now().Add(wait)); err != nil || !doubt {
				return err
			}
			return tx.Doubt(b.lane, s.ref)
		})
		if err != nil {
			b.culprit = nil
		}
		b.as.heads.set(b.lane, head{attempts: attempts, doubt: doubt})
		return wait, false
	}
	log.Error().Err(cause).Msg("An event became a dead letter")
	letter := &store.DeadLetter{Kind: deadKind(s.ev.Kind), Lane: b.lane, Key: string(s.ev.ID), Cause: text, Attempts: attempts, Body: s.ev.Raw,
		From: s.ref.Seq, Doubt: diedInDoubt(s, cause)}
	bury := func(effects []Effect) error {
		return b.flush(func(tx *store.Tx) error {
			for _, effect := range effects {
				if err := effect(tx); err != nil {
					return err
				}
			}
			if err := tx.Bury(letter); err != nil {
				return err
			}
			return tx.Finish(b.lane, s.ref)
		})
	}
	var effects []Effect
	if !s.silent {
		effects = b.as.buried(b.ctx, s.ev, cause)
	}
	if own := b.as.ownChange(s.ev); own != nil {
		effects = append(effects, own)
	}
	err := bury(effects)
	if b.culprit != nil {
		log.Error().Err(err).Msg("The effects of a burial cannot be written, and are left out")
		b.culprit = nil
		err = bury(nil)
	}
	if err != nil {
		b.culprit = nil
		// Not even that could be written. When it is handled again, the handler must know what it may have done.
		b.as.heads.set(b.lane, head{attempts: attempts, doubt: s.ev.doubted || s.ev.InDoubt})
		return time.Minute, false
	}
	b.as.metrics.event(s.ev.Kind, "buried")
	b.as.metrics.dead(1)
	b.as.heads.set(b.lane, head{})
	b.committed++
	return 0, true
}

// buried tells the handler, when it wants to know, and survives it.
func (as *AppService) buried(ctx context.Context, ev *Event, cause error) (effects []Effect) {
	h, ok := as.cfg.Handler.(BuriedHandler)
	if !ok {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			as.log.Error().Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Msg("A handler panicked over a dead letter")
			effects = nil
		}
	}()
	return h.Buried(ctx, ev, cause)
}

func deadKind(kind store.Kind) string {
	switch kind {
	case store.KindPDU:
		return "pdu"
	case store.KindToDevice:
		return "to_device"
	}
	return "element"
}

// blame buries an event over which process after process has ended. One that did so even then is not looked at any more.
func (b *batch) blame(ref store.Ref, el store.Element, state head) (retryAfter time.Duration, ok bool) {
	s := step{ref: ref, silent: state.alone > maxAlone}
	if s.silent {
		s.ev = &Event{Lane: el.Lane, Kind: el.Kind, ID: id.EventID(el.Key), Raw: el.Raw}
	} else {
		s.ev = newEvent(el)
	}
	s.ev.Attempts, s.ev.InDoubt = state.attempts-1, state.doubt // there is no attempt now
	text := fmt.Sprintf("the process ended while this was under way, %d times in a row", state.crashes)
	if state.alone > 0 {
		text += fmt.Sprintf(", %d times while nothing else was", state.alone)
	}
	return b.fail(s, Permanent(errors.New(text)))
}
