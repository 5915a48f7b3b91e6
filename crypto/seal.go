//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
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
	passes := func() bool { return errors.Is(err, errOutdated) || crypto.IsShareError(err) } // or the key was taken away before it was used
	for n := range sharesAtOnce {
		if sealed, err = c.sealOnce(ctx, m, s, n == sharesAtOnce-1); !passes() {
			break
		}
	}
	if passes() {
		err = appservice.Later(fmt.Errorf("%w, %d times in a row", err, sharesAtOnce))
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt for %s as %s: %w", s.Room, s.Machine, c.as.Explain(err))
	}
	return sealed, nil
}

// errOutdated is why a room key is not used: it was given to devices of before, and it is not known yet which there are now.
var errOutdated = errors.New("the devices of a member have changed since they were asked for")

// sealOnce tries it once. At the last time it is enough that who has other devices was asked for them after the message came, even if they have changed since: a homeserver
// that says so at each question would keep everybody from writing in the room.
func (c *Crypto) sealOnce(ctx context.Context, m *machine, s Sealing, last bool) (sealed json.RawMessage, err error) {
	var asked []id.UserID
	if err = c.doubtAfterReturn(ctx); err == nil {
		asked, err = c.freshen(ctx, m, s.Room)
	}
	if !last {
		asked = nil
	}
	if err == nil {
		err = c.giveAgain(ctx, m, s.Room)
	}
	if err == nil {
		sealed, err = m.encrypt(ctx, s, asked)
	}
	if crypto.IsShareError(err) {
		if err = c.share(ctx, m, s.Room); err == nil {
			sealed, err = m.encrypt(ctx, s, asked)
		}
	}
	return sealed, err
}

// encrypt returns an error of [crypto.IsShareError] when the room has no key that may be used, and errOutdated when the transaction that says that a member's
// devices have changed was taken in before this commit, and the devices were not asked for since: but those of a silent server, and of whom it is enough that they were asked for. The caller holds the room's lock.
func (m *machine) encrypt(ctx context.Context, s Sealing, enough []id.UserID) (sealed json.RawMessage, err error) {
	var share error // of the job itself it is none: nothing was written, and others in the commit need not run again
	err = m.c.commit(ctx, func(ctx context.Context, tx *store.Tx) error {
		l, err := m.load(ctx)
		if err != nil {
			return err
		}
		outdated, err := tx.OutdatedMembers(string(s.Room))
		if err != nil {
			return err
		}
		if share = nil; slices.ContainsFunc(outdated, func(user string) bool {
			_, silent := m.c.isSilent(id.UserID(user))
			return !silent && !slices.Contains(enough, id.UserID(user))
		}) {
			share = errOutdated
			return nil
		}
		content, err := l.EncryptMegolmEvent(ctx, s.Room, event.Type{Type: s.Type, Class: event.MessageEventType}, s.Content)
		if crypto.IsShareError(err) {
			share = err
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
