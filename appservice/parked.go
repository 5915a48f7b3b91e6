package appservice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Park is the effect of an event that cannot be read before the key of its session has come: it leaves its lane, and waits in the store until
// [AppService.Unpark] or the time until. arrived, which may be nil, is asked in the commit whether the key has come meanwhile: then the event waits at
// the end of its lane instead, and nobody has missed it.
func (as *AppService) Park(ev *Event, session id.SessionID, until time.Time, arrived func(tx *store.Tx) (bool, error)) Effect {
	return func(tx *store.Tx) error {
		err := tx.Park(&store.Parked{
			Room: string(ev.RoomID), Session: string(session), Sender: string(ev.Sender), Until: until,
			Element: store.Element{Kind: ev.Kind, Lane: ev.Lane, Key: string(ev.ID), Raw: ev.Raw},
		})
		if err != nil || arrived == nil {
			return err
		}
		if here, err := arrived(tx); err != nil || !here {
			return err
		}
		return as.Unpark(tx, ev.RoomID, session, ev.Sender)
	}
}

// Unpark belongs into the commit that keeps what a sender says is the key of a session, or somebody who may speak for all, which is an empty sender: his events
// that wait for it are taken up, at the end of their lanes, and a lane that waits for it goes on at once.
func (as *AppService) Unpark(tx *store.Tx, room id.RoomID, session id.SessionID, sender id.UserID) error {
	waited, err := tx.Unpark(string(room), string(session), string(sender))
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		for _, lane := range waited {
			as.lanes.Add(lane.Lane, lane.Refs...)
		}
		as.lanes.Wake(roomLane + string(room))
	})
	return nil
}

// BuryOverdue makes dead letters of at most limit of the events that have waited too long for their keys, with cause; a [BuriedHandler] is told of each.
// It gives how many there were.
func (as *AppService) BuryOverdue(ctx context.Context, limit int, cause error) (n int, err error) {
	list, err := as.store.Overdue(ctx, limit)
	if err != nil {
		return 0, err
	}
	for i := range list {
		if err := as.buryParked(ctx, &list[i], cause); err != nil && !errors.Is(err, store.ErrNotFound) {
			return i, err
		}
	}
	return len(list), nil
}

func (as *AppService) buryParked(ctx context.Context, p *store.Parked, cause error) error {
	ev := newEvent(p.Element)
	letter := &store.DeadLetter{Kind: deadKind(ev.Kind), Lane: ev.Lane, Key: string(ev.ID), Cause: causeText(cause), Attempts: 1, Body: ev.Raw}
	effects := as.buried(ctx, ev, cause)
	err := as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
		if err := tx.Unparked(p.ID); err != nil {
			return err
		}
		for _, effect := range effects {
			if err := effect(tx); err != nil {
				return err
			}
		}
		return tx.Bury(letter)
	})
	if err != nil {
		return fmt.Errorf("bury %s, whose key has not come: %w", ev.ID, err)
	}
	as.log.Error().Err(cause).Str("lane", ev.Lane).Stringer("event_id", ev.ID).Msg("An event became a dead letter")
	as.metrics.event(ev.Kind, "buried")
	as.metrics.dead(1)
	return nil
}
