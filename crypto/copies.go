//go:build goolm

package crypto

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// A room key does not say whose it is: every member of the room has it, and can give it to the bridge as if it were his own, an earlier state of it even, under
// another room, or before its maker does. mautrix has one row for a session, which then would be that member's, and what its maker writes could not be read.
// So what each sender says of a session is kept apart: the first in mautrix's row, what others say of the same session each in a row of its own, by an account
// ID that has the sender in it. An event is read with the copy of its own sender, on whom the homeservers agree; a copy of somebody else is no key for it.

// copyFrom is the account ID of a sender's copies.
func copyFrom(account string, sender id.UserID) string { return account + " from " + string(sender) }

type copyKey struct{}

// at is the store with the rows of an account ID.
func (s *keyStore) at(account string) *crypto.SQLCryptoStore {
	if account == s.AccountID {
		return s.SQLCryptoStore
	}
	return &crypto.SQLCryptoStore{DB: s.DB, AccountID: account, DeviceID: s.DeviceID, PickleKey: s.PickleKey}
}

// copyOf is the one that a context is about: [machine.takeRoomKey].
func (s *keyStore) copyOf(ctx context.Context) *crypto.SQLCryptoStore {
	if account, ok := ctx.Value(copyKey{}).(string); ok {
		return s.at(account)
	}
	return s.SQLCryptoStore
}

// copyForEvent is the copy of a session with which an event of a sender can be read; nil when there is none. Who has sent it is nobody where a device of the same
// user has handed it on, whom the bridge believes whose it is.
func (s *keyStore) copyForEvent(ctx context.Context, sender id.UserID, room id.RoomID, session id.SessionID) (g *crypto.InboundGroupSession, account string, err error) {
	var withheld error
	for n, account := range []string{s.AccountID, copyFrom(s.AccountID, sender), copyFrom(s.AccountID, "")} {
		g, err := s.at(account).GetGroupSession(ctx, room, session)
		switch {
		case n == 0 && errors.Is(err, crypto.ErrGroupSessionWithheld):
			withheld = err
		case err != nil:
			return nil, "", err
		case g != nil && (g.SourceUser == "" || g.SourceUser == sender):
			return g, account, nil
		}
	}
	return nil, "", withheld
}

// takeRoomKey stores what a user says is the key of a session, in his own copy of it. A copy stays in its room and with the device that it came from. It runs
// in a job. Of two devices of one user, either of which could have it from the other, one that is trusted to write takes the place of one that is not: somebody may
// have logged in as him, or his homeserver made a device up, to be there first.
func (m *machine) takeRoomKey(ctx context.Context, tx *store.Tx, l *loaded, p *olmPayload, session *crypto.InboundGroupSession) error {
	into := m.account()
	there, err := m.copyThere(ctx, into, session.ID())
	if err == nil && there != nil && there.sender != session.SenderKey && there.source != session.SourceUser {
		into = copyFrom(into, session.SourceUser)
		there, err = m.copyThere(ctx, into, session.ID())
	}
	put := l.StoreGroupSession
	if err == nil && there != nil && there.sender != session.SenderKey {
		var instead bool
		if instead, err = m.takesPlace(ctx, l, p, session, there); instead {
			there, put = nil, l.store.PutGroupSession // of the other's nothing is kept
		}
	}
	switch {
	case err != nil:
		return inStore(err)
	case there != nil && there.room != session.RoomID:
		return fmt.Errorf("%w: a key for %s, which is one of %s", ErrMismatch, session.RoomID, there.room)
	case there != nil && there.sender != session.SenderKey:
		return fmt.Errorf("%w: a key for %s, which is one of another device of %s", ErrMismatch, session.RoomID, session.SourceUser)
	}
	if into != m.account() { // what tells repetitions goes with the first row
		if err := tx.KeepRoomKey(m.account(), string(session.ID())); err != nil {
			return inStore(err)
		}
	}
	more, err := l.opensMore(ctx, into, there != nil, session)
	if err == nil {
		err = put(context.WithValue(ctx, copyKey{}, into), session)
	}
	if err == nil {
		err = m.boundUnread(tx, p.Sender)
	}
	if err == nil && more {
		err = m.c.as.Unpark(tx, session.RoomID, session.ID(), session.SourceUser)
	}
	return inStore(err)
}

// opensMore says whether a key opens anything that the copy does not that is there: if not, nothing is taken up that waits for it, however often it comes. It runs in a job.
func (l *loaded) opensMore(ctx context.Context, account string, there bool, session *crypto.InboundGroupSession) (bool, error) {
	if !there {
		return true, nil
	}
	known, err := l.store.at(account).GetGroupSession(ctx, session.RoomID, session.ID())
	return known == nil || session.Internal.FirstKnownIndex() < known.Internal.FirstKnownIndex(), err
}

// errWhose is why a message has to wait until its sender's devices have been asked for: it says what another device has said already, and is of one that is not known.
var errWhose = errors.New("which of two devices has made a session is not known yet")

// askedKey is for the context of a job after that.
type askedKey struct{}

// takesPlace says whether what a device says of a session counts for more than what another of the same user has said before. It runs in a job, and returns errWhose.
func (m *machine) takesPlace(ctx context.Context, l *loaded, p *olmPayload, session *crypto.InboundGroupSession, there *roomKeyCopy) (bool, error) {
	least := m.c.opts.Receive.least()
	device, err := l.store.FindDeviceByKey(ctx, there.source, there.sender)
	if err != nil {
		return false, err
	}
	if device != nil {
		if trust, err := l.ResolveTrustContext(ctx, device); err != nil || trust >= least {
			return false, err
		}
	}
	if device, err = l.store.deviceWith(ctx, session.SourceUser, session.SenderKey, session.SigningKey); err != nil {
		return false, err
	}
	if (device == nil || device.Deleted) && p.senderKey == session.SenderKey && p.Keys.Ed25519 == session.SigningKey { // its own message may say that its owner has signed it
		if err := l.rememberSender(ctx, p); err != nil {
			return false, err
		}
		if device, err = l.store.deviceWith(ctx, session.SourceUser, session.SenderKey, session.SigningKey); err != nil {
			return false, err
		}
	}
	trust, err := m.trust(ctx, l, session.SourceUser, session, device)
	if err != nil || device != nil && trust >= least {
		return err == nil, err
	}
	if asked, _ := ctx.Value(askedKey{}).(bool); !asked && (device == nil || device.Deleted) { // or only its own message has named it
		return false, errWhose
	}
	return false, nil
}

// copyThere is whose and for which room a copy is; nil when there is none, or word only that it will not come.
func (m *machine) copyThere(ctx context.Context, account string, session id.SessionID) (*roomKeyCopy, error) {
	there := &roomKeyCopy{}
	err := m.c.keys.QueryRow(ctx, `SELECT room_id, sender_key, source_user FROM crypto_megolm_inbound_session
		WHERE session_id = $1 AND account_id = $2 AND session IS NOT NULL`, session, account).Scan(&there.room, &there.sender, &there.source)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return there, err
}

type roomKeyCopy struct {
	room   id.RoomID
	sender id.SenderKey
	source id.UserID
}
