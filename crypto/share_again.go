//go:build goolm

package crypto

import (
	"context"
	"fmt"
	"time"

	"maunium.net/go/mautrix/id"
)

// A device that has neither a one-time key nor a fallback key left cannot be given a room key. Perhaps it has some soon: a client makes new ones when it is
// online. So the room gets another key then, instead of leaving the device out for as long as the key is used. That is tried after
// [Crypto.shortAgain] first, and after twice as long each time, so that a device that never has any costs little.

const (
	usualShortAgain = time.Minute
	mostShortAgain  = 24 * time.Hour
)

// short is a room whose key could not be given to all.
type short struct {
	next time.Time // when it gets another
	wait time.Duration
}

// noteShort remembers whether somebody was left out when a machine gave the key of a room to users.
func (c *Crypto) noteShort(ctx context.Context, l *loaded, where string, users []id.UserID) error {
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
			if trust >= l.SendKeysMinTrust && device.IdentityKey != l.GetAccount().IdentityKey() && !l.store.HasSession(ctx, device.IdentityKey) {
				wait := c.shortAgain
				if before, ok := c.shorts.Load(where); ok {
					wait = min(2*before.(short).wait, mostShortAgain)
				}
				c.shorts.Store(where, short{time.Now().Add(wait), wait})
				return nil
			}
		}
	}
	c.shorts.Delete(where)
	return nil
}

// giveAgain takes the key of a room away when it is time to try once more to give one to all. The caller holds the room's lock.
func (c *Crypto) giveAgain(ctx context.Context, m *machine, room id.RoomID) error {
	missed, ok := c.shorts.Load(m.account() + " " + string(room))
	if !ok || time.Now().Before(missed.(short).next) {
		return nil
	}
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error { return l.store.RemoveOutboundGroupSession(ctx, room) })
}
