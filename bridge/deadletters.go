package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// letterOutbox is the kind of dead letters that were on their way to Matrix; all others are the appservice's.
const letterOutbox = "outbox"

// errNotRunning is what is said about dead letters by a bridge that does not run.
var errNotRunning = errors.New("the bridge is not running")

// DeadLetters lists what could not be delivered. The bridge must be running.
func (b *Bridge) DeadLetters(ctx context.Context, q store.LetterQuery) ([]store.DeadLetter, error) {
	if !b.isReady() {
		return nil, errNotRunning
	}
	return b.store.DeadLetters(ctx, q)
}

// DeadLetter reads one dead letter, with its body; store.ErrNotFound when there is none. The bridge must be running.
func (b *Bridge) DeadLetter(ctx context.Context, id int64) (*store.DeadLetter, error) {
	if !b.isReady() {
		return nil, errNotRunning
	}
	return b.store.DeadLetter(ctx, id)
}

// ReplayDeadLetter takes a dead letter up again, as if it had just come in: in one commit the letter goes, and what is in
// it waits at the end of its lane. A message that may have reached the network before it died is sent again. What
// goes to Matrix goes with the transaction ID that it had, by which the homeserver knows for a day whether it has it.
//
// An error that [appservice.IsPermanent] marks says that it cannot be taken up, and why; the letter stays, with that as its
// cause. store.ErrNotFound: there is no such letter. After any other error nothing has changed. The bridge must be running.
func (b *Bridge) ReplayDeadLetter(ctx context.Context, id int64) error {
	if !b.isReady() {
		return errNotRunning
	}
	return b.replay(ctx, id)
}

// DropDeadLetter forgets a dead letter; store.ErrNotFound when there is none. The bridge must be running.
func (b *Bridge) DropDeadLetter(ctx context.Context, id int64) error {
	if !b.isReady() {
		return errNotRunning
	}
	return b.drop(ctx, id)
}

func (b *Bridge) isReady() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

func (b *Bridge) drop(ctx context.Context, id int64) error {
	return b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error { return tx.DropDeadLetter(id) })
}

func (b *Bridge) replay(ctx context.Context, id int64) error {
	letter, err := b.store.DeadLetter(ctx, id)
	if err != nil {
		return err
	}
	if letter.Kind != letterOutbox {
		return b.as.ReplayDeadLetter(ctx, id)
	}
	err = b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		row, err := tx.ReplayOutgoing(id)
		if err != nil {
			return err
		}
		b.comings.schedule(tx, row.Lane, row.ID)
		return nil
	})
	if err != nil {
		return fmt.Errorf("replaying dead letter %d: %w", id, err)
	}
	return nil
}

const (
	// requestPoll is how often the bridge looks for what an operator asked for in another process. It asks an index that
	// is empty nearly always.
	requestPoll  = time.Second
	requestsPage = 100
)

// attendRequests carries out what the command deadletters asks for, beginning with what was asked while the bridge was
// stopped.
func (b *Bridge) attendRequests(ctx context.Context) {
	tick := time.NewTicker(requestPoll)
	defer tick.Stop()
	for troubled := false; ; {
		err := b.carryOutRequests(ctx)
		b.failIfLost(err)
		if err != nil && ctx.Err() == nil && !troubled {
			b.log.Warn().Err(err).Msg("What was asked about dead letters cannot be done now; it is tried again every second")
		}
		troubled = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Bridge) carryOutRequests(ctx context.Context) error {
	for {
		requests, err := b.store.OpenRequests(ctx, requestsPage)
		if err != nil {
			return err
		}
		for i := range requests {
			if err := b.carryOutRequest(ctx, &requests[i]); err != nil {
				return err
			}
		}
		if len(requests) < requestsPage {
			return nil
		}
	}
}

// carryOutRequest returns an error when there is no answer yet.
func (b *Bridge) carryOutRequest(ctx context.Context, r *store.LetterRequest) error {
	var err error
	switch r.Action {
	case store.ActionReplay:
		err = b.replay(ctx, r.Letter)
	case store.ActionDrop:
		err = b.drop(ctx, r.Letter)
	default:
		err = b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
			return tx.RefuseReplay(r.Letter, fmt.Sprintf("somebody asked for %q, which this version does not know", r.Action))
		})
	}
	log := b.log.With().Int64("dead_letter", r.Letter).Str("action", r.Action).Logger()
	switch {
	case err == nil:
		log.Info().Msg("Did with a dead letter what was asked")
	case errors.Is(err, store.ErrNotFound):
		return b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error { return tx.AnswerMissing(r.Letter) })
	case appservice.IsPermanent(err):
		log.Warn().Err(err).Msg("A dead letter stays one")
	default:
		return err
	}
	return nil
}
