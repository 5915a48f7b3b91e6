package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/internal/failpoint"
	"github.com/trestle-bridge/trestle/store"
)

// This file is how what goes to Matrix is encrypted: a row of the outbox once, in the commit that marks it as under way. What is sent again later is the
// same ciphertext, so that nobody sees two messages, and no key is used twice.

// wire is what goes into a room for an outbox row: what it says, or its ciphertext. It looks last of all whether the room is encrypted, since nothing
// readable may enter one.
func (b *Bridge) wire(ctx context.Context, row *store.Outgoing, o *outgoing, sender id.UserID, content json.RawMessage) (event.Type, json.RawMessage, error) {
	encrypted := event.Type{Type: event.EventEncrypted.Type, Class: event.MessageEventType}
	if row.Sealed != nil {
		return encrypted, row.Sealed, nil
	}
	err := b.guard.Check(ctx, o.Room)
	if !isEncrypted(err) {
		return event.Type{Type: o.Type, Class: event.MessageEventType}, content, err
	}
	mode := b.mode(o.Room)
	if mode == modeOff {
		return event.Type{}, nil, err
	}
	machine := sender
	if mode == modeBot {
		if machine, err = b.speaker(ctx, o.Room); err != nil {
			return event.Type{}, nil, err
		}
	}
	if err := b.cipher.Prepare(ctx, machine); err != nil {
		return event.Type{}, nil, fmt.Errorf("giving %s its keys: %w", machine, err)
	}
	if content, err = b.sealFileOf(ctx, row, o, sender, content); err != nil {
		return event.Type{}, nil, err
	}
	content, clear, err := takeClear(content)
	if err != nil {
		return event.Type{}, nil, err
	}
	failpoint.Before("seal")
	_, err = b.cipher.Seal(ctx, crypto.Sealing{
		Room: o.Room, Machine: machine, Type: o.Type, Content: content,
		Record: func(tx *store.Tx, sealed json.RawMessage) (err error) {
			if sealed, err = putClear(sealed, clear); err != nil {
				return err
			}
			row.Sealed = sealed
			return tx.OutgoingSealed(row.ID, row.Sealed, true)
		},
	})
	if err != nil {
		row.Sealed = nil
		return event.Type{}, nil, fmt.Errorf("encrypting it: %w", err)
	}
	failpoint.After("seal")
	return encrypted, row.Sealed, nil
}

// errSwitched is why a message does not leave as it is: it is encrypted at the next attempt, or refused for good.
var errSwitched = errors.New("encryption was switched on in the room while the message was being sent")

// stillPlain returns nil while what is on its way into a room may be in the clear.
func (b *Bridge) stillPlain(ctx context.Context, room id.RoomID) error {
	err := b.guard.Check(ctx, room)
	if isEncrypted(err) {
		return errSwitched
	}
	return err
}

// prepareGhost gives a ghost its keys before it comes into an encrypted room, so that whoever speaks there next can encrypt for it.
func (b *Bridge) prepareGhost(ctx context.Context, room id.RoomID, ghost *appservice.Intent) error {
	if b.cipher == nil || b.mode(room) != modeGhosts {
		return nil
	}
	if membership, err := b.store.Member(ctx, string(room), string(ghost.UserID())); err != nil || membership == "join" {
		return err // wire prepares who speaks
	}
	if err := b.guard.Check(ctx, room); !isEncrypted(err) {
		return nil // a room that none of the bridge's users is in is looked at once the ghost is, before anything is said
	}
	if err := b.cipher.Prepare(ctx, ghost.UserID()); err != nil {
		return fmt.Errorf("giving %s its keys: %w", ghost.UserID(), err)
	}
	return nil
}
