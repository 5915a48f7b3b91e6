//go:build goolm

package crypto

import (
	"context"
	"fmt"
	"time"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

// A device that has neither a one-time key nor a fallback key left cannot be given a room key. Perhaps it has some soon: a client makes new ones when it is
// online. So the room gets another key then, instead of leaving the device out for as long as the key is used. That is tried after
// [Crypto.shortAgain] first, and after twice as long each time, so that a device that never has any costs little. The wait is the device's own in the room:
// who comes without a key does not wait as long as somebody who has had none for days.

const (
	usualShortAgain = time.Minute
	mostShortAgain  = 24 * time.Hour
)

// again is when something is tried once more.
type again struct {
	next time.Time
	wait time.Duration
}

// inVain is when it is tried once more after it was tried now. What is tried before its time, for the sake of others, does not wait twice as long for it, but
// once more as long from now on if more than half of its wait is over: so those who have long waits come to be tried together.
func (a again) inVain(now time.Time, first, most time.Duration) again {
	left := a.next.Sub(now)
	switch {
	case a.wait == 0:
		a.wait = first
	case left > a.wait/2:
		return a
	case left <= 0:
		a.wait = min(2*a.wait, most)
	}
	return again{now.Add(a.wait), a.wait}
}

// noteShort remembers which of the users' devices have not been given the key that a machine has in a room.
func (c *Crypto) noteShort(ctx context.Context, m *machine, l *loaded, room id.RoomID, users []id.UserID) error {
	key, err := l.store.GetOutboundGroupSession(ctx, room)
	if err != nil || key == nil {
		return err
	}
	where := m.account() + " " + string(room)
	before, _ := c.shorts.Load(where)
	waited, _ := before.(map[id.IdentityKey]again)
	short := map[id.IdentityKey]again{}
	now := time.Now()
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
			given, err := l.store.wasGiven(ctx, device, key)
			if err != nil {
				return fmt.Errorf("find out whether device %s of %s has a room key: %w", device.DeviceID, user, err)
			}
			if !given {
				c.noteKeyless(ctx, device)
			}
			if !given || operationOf(ctx).to.left[device.SigningKey] {
				short[device.IdentityKey] = waited[device.IdentityKey].inVain(now, c.shortAgain, mostShortAgain)
			}
		}
	}
	if len(short) > 0 {
		c.shorts.Store(where, short)
		return nil
	}
	c.shorts.Delete(where)
	m.whole.Store(room, true)
	return l.store.MarkOutboundGroupSessionShared(ctx, toAll, "", key.ID())
}

// toAll stands for everybody in the notes of who was given a room key: for a machine that comes into memory again, so that it does not look at each device.
const toAll id.UserID = ""

// wasGivenToAll says whether it was noted that all have the key that a machine has in a room, or that there is none.
func (m *machine) wasGivenToAll(ctx context.Context, room id.RoomID) (bool, error) {
	l, err := m.load(ctx)
	if err != nil {
		return false, err
	}
	key, err := l.store.GetOutboundGroupSession(ctx, room)
	if err != nil || key == nil {
		return key == nil, err
	}
	return l.store.IsOutboundGroupSessionShared(ctx, toAll, "", key.ID())
}

// wasGiven says whether a device was given a room key: it was if there was an Olm session with it by the time that the key was stored, for that is done when
// it has been given to all who could be. That mautrix marks it as shared with a device says less: it may ask for it.
func (s *keyStore) wasGiven(ctx context.Context, device *id.Device, key *crypto.OutboundGroupSession) (bool, error) {
	latest, err := s.sessionWith(ctx, device)
	if err != nil || latest == nil || !latest.CreationTime.After(key.CreationTime) {
		return latest != nil, err
	}
	sessions, err := s.GetSessions(ctx, device.IdentityKey)
	for _, session := range sessions {
		if session.CreationTime.After(key.CreationTime) {
			continue
		}
		if serves, err := s.serves(ctx, session, device.SigningKey); err != nil || serves {
			return serves, err
		}
	}
	return false, err
}

// giveAgain takes the key of a room away when it is time to try once more to give one to all. Whether all have it is looked at in the store where that is not
// remembered, as after a start, and device by device where it is not noted there. The caller holds the room's lock.
func (c *Crypto) giveAgain(ctx context.Context, m *machine, room id.RoomID) error {
	missed, ok := c.shorts.Load(m.account() + " " + string(room))
	if _, whole := m.whole.Load(room); !ok && !whole {
		if noted, err := m.wasGivenToAll(ctx, room); noted || err != nil {
			return err
		}
		users, _, err := c.readers(ctx, m, room)
		if err != nil {
			return err
		}
		return m.olmWork(ctx, func(ctx context.Context, l *loaded) error { return c.noteShort(ctx, m, l, room, users) })
	}
	if !ok {
		return nil
	}
	now := time.Now()
	for _, device := range missed.(map[id.IdentityKey]again) {
		if !now.Before(device.next) {
			return m.olmWork(ctx, func(ctx context.Context, l *loaded) error { return l.store.RemoveOutboundGroupSession(ctx, room) })
		}
	}
	return nil
}
