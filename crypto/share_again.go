//go:build goolm

package crypto

import (
	"context"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// A device that has neither a one-time key nor a fallback key left cannot be given a room key. Perhaps it has some soon: a client makes new ones when it is
// online. So the room gets another key then, instead of leaving the device out for as long as the key is used. That is tried after
// [Crypto.shortAgain] first, and after twice as long each time, so that a device that never has any costs little.

const (
	usualShortAgain = time.Minute
	mostShortAgain  = 24 * time.Hour
)

// again is when something is tried once more.
type again struct {
	next time.Time
	wait time.Duration
}

// noteShort remembers whether some of the users' devices have not been given the key that a machine has in a room.
func (c *Crypto) noteShort(ctx context.Context, m *machine, l *loaded, room id.RoomID, users []id.UserID) error {
	key, err := l.store.GetOutboundGroupSession(ctx, room)
	if err != nil || key == nil {
		return err
	}
	where := m.account() + " " + string(room)
	for _, user := range users {
		devices, err := l.store.GetDevices(ctx, user)
		if err != nil {
			return fmt.Errorf("read the devices of %s: %w", user, err)
		}
		for _, device := range devices {
			trust, err := l.ResolveTrustContext(ctx, device)
			if err != nil {
				return fmt.Errorf("find out how far device %s of %s is trusted: %w", device.DeviceID, user, err)
			}
			if trust < l.SendKeysMinTrust || device.IdentityKey == l.GetAccount().IdentityKey() {
				continue
			}
			given, err := l.store.wasGiven(ctx, device.IdentityKey, key)
			if err != nil {
				return fmt.Errorf("find out whether device %s of %s has a room key: %w", device.DeviceID, user, err)
			}
			if !given {
				wait := c.shortAgain
				if before, ok := c.shorts.Load(where); ok {
					if time.Now().Before(before.(again).next) {
						return nil // who came or went took the key away, and nobody has waited yet
					}
					wait = min(2*before.(again).wait, mostShortAgain)
				}
				c.shorts.Store(where, again{time.Now().Add(wait), wait})
				return nil
			}
		}
	}
	c.shorts.Delete(where)
	m.whole.Store(room, true)
	return nil
}

// wasGiven says whether a device was given a room key: it was if there was an Olm session with it by the time that the key was stored, for that is done when
// it has been given to all who could be. That mautrix marks it as shared with a device says less: it may ask for it.
func (s *keyStore) wasGiven(ctx context.Context, device id.IdentityKey, key *crypto.OutboundGroupSession) (bool, error) {
	latest, err := s.GetLatestSession(ctx, device)
	if err != nil || latest == nil || !latest.CreationTime.After(key.CreationTime) {
		return latest != nil, err
	}
	sessions, err := s.GetSessions(ctx, device)
	return slices.ContainsFunc(sessions, func(o *crypto.OlmSession) bool {
		return !o.CreationTime.After(key.CreationTime) && !store.IsRetired(o.CreationTime)
	}), err
}

// giveAgain takes the key of a room away when it is time to try once more to give one to all. Whether all have it is looked at in the store where that is not
// remembered, as after a start. The caller holds the room's lock.
func (c *Crypto) giveAgain(ctx context.Context, m *machine, room id.RoomID) error {
	missed, ok := c.shorts.Load(m.account() + " " + string(room))
	if _, whole := m.whole.Load(room); !ok && !whole {
		users, _, err := c.readers(ctx, m, room)
		if err != nil {
			return err
		}
		return m.olmWork(ctx, func(ctx context.Context, l *loaded) error { return c.noteShort(ctx, m, l, room, users) })
	}
	if !ok || time.Now().Before(missed.(again).next) {
		return nil
	}
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error { return l.store.RemoveOutboundGroupSession(ctx, room) })
}
