//go:build goolm

package crypto

import (
	"context"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// What the keys worker builds: each of these is to be moved out of here and filled, and this file deleted.

// Prepare gives a user of the bridge a device with keys on the homeserver. It may be called again and again.
func (c *Crypto) Prepare(ctx context.Context, user id.UserID) error {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return err
	}
	defer release()
	unlock, err := m.lockOlm(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.olmWorkLocked(ctx, true, func(ctx context.Context, l *loaded) error {
		if l.GetAccount().Shared {
			return nil
		}
		return l.ShareKeys(ctx, 0)
	})
}

// RequestKey asks for the key of an event.
func (c *Crypto) RequestKey(ctx context.Context, ev *appservice.Event, reader id.UserID) error {
	return nil
}

// ResetCrossSigning makes new cross-signing keys for a user.
func (c *Crypto) ResetCrossSigning(ctx context.Context, user id.UserID) error { return nil }

// deviceLists and keyCounts are the parts of HandleKeys.
func (c *Crypto) deviceLists(ctx context.Context, ev *appservice.Event) error { return nil }
func (c *Crypto) keyCounts(ctx context.Context, ev *appservice.Event) error   { return nil }

// plainToDevice takes in a to-device message that is not encrypted: m.room_key_request, m.room_key.withheld.
func (m *machine) plainToDevice(ctx context.Context, ev *appservice.Event) error { return nil }

// receivedForwardedKey takes in an m.forwarded_room_key, in a job under the Olm lock.
func (m *machine) receivedForwardedKey(ctx context.Context, tx *store.Tx, l *loaded, p *olmPayload) error {
	return nil
}

// mend makes a new Olm session with a device whose messages cannot be decrypted any more (at most once an hour each), in the
// background or when next there is work for m. It must not wait.
func (c *Crypto) mend(m *machine, user id.UserID, key id.SenderKey) {}

// freshen makes sure before a room key is used again that the devices of the room's members are known: outdated users are
// queried, and when the set of devices changed the room's sessions are dropped. The caller holds the room's lock, not the
// Olm lock. It must cost next to nothing when nobody is outdated.
func (c *Crypto) freshen(ctx context.Context, m *machine, room id.RoomID) error { return nil }

// beforeShare runs under the Olm lock and the room's, before a room key is shared: one-time keys are claimed, paced. An error of
// appservice.Later waits.
func (c *Crypto) beforeShare(ctx context.Context, m *machine, l *loaded, room id.RoomID, users []id.UserID) error {
	return nil
}

// judge says whether the sender's device is trusted enough for an event that was decrypted: ErrMismatch, ErrUntrusted. No lock
// is held. It sets ev.Mautrix.TrustState.
func (m *machine) judge(ctx context.Context, ev *event.Event, o *opening) error { return nil }
