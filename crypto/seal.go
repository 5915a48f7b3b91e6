//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"fmt"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Seal encrypts an event for a room with the key that the machine has there, which is shared first where that is needed, and
// returns the content of the m.room.encrypted event. The ratchet's step, the content and what Record writes are one commit.
// The relation to another event stays readable for the homeserver, as the specification wants it.
func (c *Crypto) Seal(ctx context.Context, s Sealing) (sealed json.RawMessage, err error) {
	if err := c.sureOfStore(ctx); err != nil {
		return nil, fmt.Errorf("encrypt for %s as %s: %w", s.Room, s.Machine, err)
	}
	m, release, err := c.useOf(ctx, s.Machine)
	if err != nil {
		return nil, fmt.Errorf("encrypt for %s as %s: %w", s.Room, s.Machine, err)
	}
	defer release()
	unlock, err := m.lockRoom(ctx, s.Room)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err = c.doubtAfterReturn(ctx); err == nil {
		err = c.freshen(ctx, m, s.Room)
	}
	if err == nil {
		err = c.giveAgain(ctx, m, s.Room)
	}
	if err == nil {
		sealed, err = m.encrypt(ctx, s)
	}
	if crypto.IsShareError(err) {
		if err = c.share(ctx, m, s.Room); err == nil {
			sealed, err = m.encrypt(ctx, s)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt for %s as %s: %w", s.Room, s.Machine, c.as.Explain(err))
	}
	return sealed, nil
}

// encrypt returns an error of [crypto.IsShareError] when the room has no key that may be used. The caller holds the room's
// lock.
func (m *machine) encrypt(ctx context.Context, s Sealing) (sealed json.RawMessage, err error) {
	var share error
	err = m.c.commit(ctx, func(ctx context.Context, tx *store.Tx) error {
		l, err := m.load(ctx)
		if err != nil {
			return err
		}
		content, err := l.EncryptMegolmEvent(ctx, s.Room, event.Type{Type: s.Type, Class: event.MessageEventType}, s.Content)
		if share = nil; crypto.IsShareError(err) {
			share = err // no error of the job: nothing was written, and others in the commit need not run again
			return nil
		}
		if err == nil {
			sealed, err = withRelation(content, s.Content)
		}
		if err == nil && s.Record != nil {
			err = s.Record(tx, sealed)
		}
		return err
	})
	if err == nil {
		err = share
	}
	return sealed, err
}

// withRelation gives the content as JSON, with the relation as it is: mautrix's type for it does not have all that may be
// in one.
func withRelation(sealed *event.EncryptedEventContent, plain json.RawMessage) (json.RawMessage, error) {
	var relation struct {
		RelatesTo json.RawMessage `json:"m.relates_to,omitempty"`
	}
	if err := json.Unmarshal(plain, &relation); err != nil {
		return nil, fmt.Errorf("the content is not a JSON object: %w", err)
	}
	//lint:ignore SA1019 clients of before Matrix 1.3 look for the deprecated fields
	key, device := sealed.SenderKey, sealed.DeviceID
	return json.Marshal(struct {
		Algorithm  id.Algorithm    `json:"algorithm"`
		Ciphertext string          `json:"ciphertext"`
		SenderKey  id.SenderKey    `json:"sender_key"`
		DeviceID   id.DeviceID     `json:"device_id"`
		SessionID  id.SessionID    `json:"session_id"`
		RelatesTo  json.RawMessage `json:"m.relates_to,omitempty"`
	}{sealed.Algorithm, string(sealed.MegolmCiphertext), key, device, sealed.SessionID, relation.RelatesTo})
}
