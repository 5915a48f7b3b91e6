package appservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trestle-bridge/trestle/store"
)

// ReplayDeadLetter takes a dead letter up again, as if it had just come in: in one commit the letter goes, and what is in
// it waits at the end of its lane, with no attempts and not in doubt. That holds as well for an event that may have been
// delivered before it died (store.DeadLetter.Doubt): whoever replays it wants it delivered.
//
// What never could be read (kinds "body" and "element", and bad events) is read again: good events in it are taken in,
// each once by its event ID. What still cannot be read stays a dead letter, with the cause of now; the error then is
// marked by [Permanent]. A letter that is not there is store.ErrNotFound; the kind "outbox" is not the appservice's. Any
// other error says that nothing was done, and that it may work later: the store failed, the backlog is at its limit, or
// the appservice does not run.
func (as *AppService) ReplayDeadLetter(ctx context.Context, id int64) error {
	if err := as.revive(ctx, id); err != nil {
		return fmt.Errorf("replay dead letter %d: %w", id, err)
	}
	return nil
}

func (as *AppService) revive(ctx context.Context, id int64) error {
	if err := as.running(); err != nil {
		return err
	}
	letter, err := as.store.DeadLetter(ctx, id)
	if err != nil {
		return err
	}
	t, err := readLetter(letter)
	if errors.Is(err, errForeignLetter) {
		return Permanent(err)
	} else if err != nil {
		return as.refuseReplay(ctx, id, err)
	}
	if waiting, _ := as.lanes.Len(); waiting >= as.cfg.BacklogLimit && len(t.Elements) > 0 {
		return fmt.Errorf("%w: %d events wait", errBacklog, waiting)
	}
	return as.commitReplay(ctx, func(tx *store.Tx) error {
		refs, err := tx.Replay(id, t)
		if err != nil {
			return err
		}
		tx.AfterCommit(func() {
			for _, lane := range refs {
				as.lanes.Add(lane.Lane, lane.Refs...)
			}
			as.metrics.dead(len(t.Dead))
		})
		return nil
	})
}

// refuseReplay writes down why a letter stays.
func (as *AppService) refuseReplay(ctx context.Context, id int64, cause error) error {
	err := as.commitReplay(ctx, func(tx *store.Tx) error { return tx.RefuseReplay(id, causeText(cause)) })
	if err != nil {
		return err
	}
	return Permanent(cause)
}

func (as *AppService) commitReplay(ctx context.Context, job func(tx *store.Tx) error) error {
	err := as.store.Commit(ctx, as.epoch, job)
	if isFinal(err) {
		as.setFatal(err)
	}
	return err
}

var errForeignLetter = errors.New("it is of the outbox, which is not the appservice's")

// readLetter makes of a dead letter what is to be taken in. An error says that nothing of it can be.
func readLetter(letter *store.DeadLetter) (*store.Transaction, error) {
	body, err := letterTransaction(letter)
	if err != nil {
		return nil, err
	}
	c, err := splitTransaction(letter.Key, body)
	if err != nil {
		return nil, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if len(c.elements) == 0 && len(c.dead) == 1 {
		return nil, errors.New(c.dead[0].Cause) // the letter itself, once more
	}
	for i := range c.elements {
		switch el := &c.elements[i]; {
		case letter.Attempts > 0:
			el.Again = true // it was in a lane before, so its ID is known
		case letter.Kind == "to_device":
			el.Key = "" // the transaction that it came in, which is part of the key, is not known any more
		}
	}
	return &store.Transaction{ID: letter.Key, Received: time.Now(), Elements: c.elements, EncryptedRooms: c.encrypted, Dead: c.dead}, nil
}

// letterTransaction gives the body of a transaction that brings what is in a dead letter, and nothing else.
func letterTransaction(letter *store.DeadLetter) ([]byte, error) {
	list := func(name string) []byte { return section(name, append(append([]byte{'['}, letter.Body...), ']')) }
	switch letter.Kind {
	case "outbox":
		return nil, errForeignLetter
	case "body":
		return letter.Body, nil
	case "pdu":
		return list("events"), nil
	case "to_device":
		return list("to_device"), nil
	case "element":
		// What was taken in as device lists has no name of its own; everything else is a transaction already.
		if letter.Attempts > 0 && !hasSection(letter.Body) {
			return section("device_lists", letter.Body), nil
		}
		return letter.Body, nil
	}
	return nil, fmt.Errorf("this version does not know what a dead letter of kind %q is", letter.Kind)
}

// hasSection says whether an object names a section of a transaction.
func hasSection(object []byte) bool {
	dec := jsontext.NewDecoder(bytes.NewBuffer(object), lenient)
	if open, err := dec.ReadToken(); err != nil || open.Kind() != '{' {
		return false
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadValue()
		if err != nil || isSection(unquote(name)) {
			return err == nil
		}
		if dec.SkipValue() != nil {
			return false
		}
	}
	return false
}

func isSection(name string) bool {
	for _, section := range sections {
		for _, spelling := range section.spellings {
			if name == spelling {
				return true
			}
		}
	}
	return name == "events"
}

// diedInDoubt says whether what an event's handler was about to do may have been done, although the event becomes a dead
// letter. A handler that knows says so by an error with a method InDoubt() bool.
func diedInDoubt(s step, cause error) bool {
	var marked interface{ InDoubt() bool }
	var effects *effectError
	switch {
	case errors.As(cause, &marked):
		return marked.InDoubt()
	case s.ev.doubted:
		return isPanic(cause) || errors.As(cause, &effects)
	}
	return s.ev.InDoubt
}
