//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// A device is asked for no more than claimsAtOnce one-time keys at once, and then one each claimsEvery, whatever number of ghosts wants to write to it: a
// client keeps 50 to 100 on the homeserver, and one that is online fills up after each answer of /sync.
const (
	claimsAtOnce = 20
	claimsEvery  = time.Second
	// claimsLongest bounds the turns that are given out in advance: who is told to wait may never come back.
	claimsLongest = time.Minute
)

// ErrClaims says that a room key has to wait until its readers' devices may be asked for one-time keys again.
var ErrClaims = errors.New("devices in the room were asked for many keys just now; the message waits for its turn")

// claims are the buckets of devices, by the ed25519 key that signs their one-time keys. A full one is not kept.
type claims struct {
	mu      sync.Mutex
	buckets map[id.SigningKey]bucket
	swept   time.Time
}

type bucket struct {
	left float64
	at   time.Time
	turn time.Time // of who was last told to wait
}

// take takes one from each device's bucket, or none at all, and says then how long to wait. Those who wait are told different times, so that they do not
// all come back for the same key. Of devices that have one signing key, as no client makes them, one counts: they are to hold up nobody else.
func (c *claims) take(devices []id.SigningKey, now time.Time) (wait time.Duration) {
	devices = slices.Compact(slices.Sorted(slices.Values(devices)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buckets == nil {
		c.buckets = make(map[id.SigningKey]bucket)
	}
	for _, device := range devices {
		if left := c.left(device, now); left < 1 {
			b := c.buckets[device]
			turn := now.Add(time.Duration((1 - left) * float64(claimsEvery)))
			if after := b.turn.Add(claimsEvery); after.After(turn) {
				turn = after
			}
			if last := now.Add(claimsLongest); turn.After(last) {
				turn = last
			}
			b.turn = turn
			c.buckets[device] = b
			wait = max(wait, turn.Sub(now))
		}
	}
	if wait > 0 {
		return wait
	}
	for _, device := range devices {
		c.buckets[device] = bucket{c.left(device, now) - 1, now, c.buckets[device].turn}
	}
	if now.Sub(c.swept) > claimsAtOnce*claimsEvery {
		c.swept = now
		for device := range c.buckets {
			if c.left(device, now) >= claimsAtOnce {
				delete(c.buckets, device)
			}
		}
	}
	return 0
}

func (c *claims) left(device id.SigningKey, now time.Time) float64 {
	b, ok := c.buckets[device]
	if !ok {
		return claimsAtOnce
	}
	return min(b.left+float64(now.Sub(b.at))/float64(claimsEvery), claimsAtOnce)
}

// remember fills the buckets with what was claimed at those times, oldest first, by a process before this one.
func (c *claims) remember(device id.SigningKey, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buckets == nil {
		c.buckets = make(map[id.SigningKey]bucket)
	}
	c.buckets[device] = bucket{left: max(c.left(device, at)-1, 0), at: at}
}

// rememberClaims has the buckets go on where they were when the process ended: one that ends again and again must not drain a device. A key that was claimed
// has become an Olm session, which is in the store. It is a look at all of them, for the start.
func (c *Crypto) rememberClaims(ctx context.Context) error {
	now := time.Now()
	rows, err := c.keys.Query(ctx, `SELECT c.signing_key, s.created_at FROM crypto_olm_session s JOIN olm_claimed c ON c.account = s.account_id AND c.session = s.session_id
		WHERE s.created_at > $1 ORDER BY s.created_at`, now.Add(-claimsAtOnce*claimsEvery))
	if err != nil {
		return fmt.Errorf("read which one-time keys were claimed: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var device id.SigningKey
		var at time.Time
		if err := rows.Scan(&device, &at); err != nil {
			return fmt.Errorf("read which one-time keys were claimed: %w", err)
		}
		if !at.After(now) { // or the clock was put back
			c.claims.remember(device, at)
		}
	}
	return rows.Err()
}

// askUnknown asks for the devices of those of whom nobody has asked yet. It runs under the room's lock, and not under the Olm lock.
func (c *Crypto) askUnknown(ctx context.Context, m *machine, room id.RoomID, users []id.UserID) error {
	l, err := m.load(ctx)
	if err != nil {
		return err
	}
	var unknown []id.UserID
	for _, user := range users {
		if devices, err := l.store.GetDevices(ctx, user); err != nil {
			return fmt.Errorf("read the devices of %s: %w", user, err)
		} else if devices == nil {
			unknown = append(unknown, user)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	if err := m.askFor(ctx, unknown); err != nil {
		return fmt.Errorf("ask for the devices of who is in %s: %w", room, err)
	}
	return nil
}

// noteKeyless notes of a device that was asked in this operation for a one-time key that it had none. Who has no way to it passes it over for a moment: each new room key
// of each ghost would take a turn from its bucket, and whoever speaks would wait for a device that never has any.
func (c *Crypto) noteKeyless(ctx context.Context, device *id.Device) {
	if operationOf(ctx).to.asked[device.SigningKey] {
		c.keyless.may(string(device.SigningKey), 0, time.Now())
	}
}

// beforeShare makes sure before a room key is shared that the devices that get it are known, and that those with which there is no Olm session yet may be
// asked for a one-time key now: an error is one of [appservice.LaterIn], and of [ErrClaims]. It runs under the room's lock and the Olm lock.
func (c *Crypto) beforeShare(ctx context.Context, l *loaded, users []id.UserID) error {
	var without []id.SigningKey
	to := &operationOf(ctx).to
	for _, user := range users {
		devices, err := l.store.GetDevices(ctx, user)
		if err != nil {
			return fmt.Errorf("read the devices of %s: %w", user, err)
		}
		if devices == nil {
			return errOvertaken // they were forgotten since they were asked for
		}
		for _, device := range devices {
			if trust, err := l.ResolveTrustContext(ctx, device); err != nil {
				return fmt.Errorf("find out how far device %s of %s is trusted: %w", device.DeviceID, user, err)
			} else if trust < l.SendKeysMinTrust {
				continue
			}
			session, err := l.store.sessionWith(ctx, device)
			switch {
			case err != nil:
				return fmt.Errorf("look for a session with device %s of %s: %w", device.DeviceID, user, err)
			case session == nil && c.keyless.lately(string(device.SigningKey), c.shortAgain/2, time.Now()):
				to.passed = append(to.passed, device)
				continue
			case session == nil:
				without = append(without, device.SigningKey)
			}
			to.add(device)
		}
	}
	to.ask(without)
	if wait := c.claims.take(without, time.Now()); wait > 0 {
		return appservice.LaterIn(wait, fmt.Errorf("%w (%s)", ErrClaims, wait.Round(time.Millisecond)))
	}
	return nil
}
