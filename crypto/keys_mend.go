//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Whoever can send to-device messages can send some that cannot be decrypted, as many as he likes and each with another sender_key. So what is done about
// them is bounded for each device, for each sender and for all together; it is done for devices only that the homeserver has; and while it waits for others'
// homeservers the machine's Olm lock is free, so that messages that can be read are not held up.

const (
	// mendEvery is how often a new Olm session is made with the same device at first: each costs it a one-time key (client-server API, "Recovering from
	// undecryptable messages"). mendSeldom is the longest that it comes to.
	mendEvery, mendSeldom = time.Hour, 24 * time.Hour
	// askUnknown is for how long a sender is not asked for devices again after he had none of the key that he named; askSeldom the longest.
	askUnknown, askSeldom = time.Minute, 24 * time.Hour
	// unknownAtOnce are asked for so at once, of all senders, and then one each unknownEvery.
	unknownAtOnce, unknownEvery = 10, 10 * time.Second
	// repairEvery is how often all one-time keys of a device of the bridge are replaced: with each time keys are thrown away for which messages may be under
	// way. An account keeps two fallback keys, as with fallbackFor. repairSeldom is the longest that it comes to; the same sender causes it only once in that time.
	repairEvery, repairSeldom = fallbackFor, 24 * time.Hour
	// mendPatience is how long it may take.
	mendPatience = time.Minute
	// mendsAtOnce is how many are under way. Another is left alone: it comes back with the next message that cannot be read.
	mendsAtOnce = 8
)

// mends is what bounds them.
type mends struct {
	sessions, unknown, repairs backoff // by device, sender, sender
	anySession, anyUnknown     pace
	turns                      chan struct{} // holds one for each that is under way
}

func newMends() *mends {
	return &mends{
		sessions: backoff{first: mendEvery, most: mendSeldom}, unknown: backoff{first: askUnknown, most: askSeldom},
		repairs:    backoff{first: repairSeldom, most: repairSeldom},
		anySession: pace{atOnce: 100, every: time.Second}, anyUnknown: pace{atOnce: unknownAtOnce, every: unknownEvery},
		turns: make(chan struct{}, mendsAtOnce),
	}
}

// mend makes good for a message that could not be decrypted, in the background: it makes a new Olm session with the sender, who then uses that; and when
// the message was for a one-time key that is not in the store, because that was put back to an older state, the homeserver gets new ones. It does not wait.
func (c *Crypto) mend(m *machine, user id.UserID, key id.SenderKey, cause error) {
	select {
	case c.mends.turns <- struct{}{}:
	default:
		return
	}
	_, release := c.use(m.deviceKey) // it stays while it is mended
	c.running.Go(func() {
		defer func() { <-c.mends.turns }()
		defer release()
		ctx, cancel := context.WithTimeout(context.Background(), mendPatience)
		defer cancel()
		go func() {
			select {
			case <-c.quit:
				cancel()
			case <-ctx.Done():
			}
		}()
		err := c.survive(func() error { return c.mendWith(ctx, m, user, key, errors.Is(cause, olm.ErrBadMessageKeyID)) })
		if err != nil && !errors.Is(err, ErrNoMachine) {
			c.log.Warn().Err(err).Str("account", m.account()).Stringer("with", user).Msg("An Olm session could not be mended")
		}
	})
}

func (c *Crypto) mendWith(ctx context.Context, m *machine, user id.UserID, key id.SenderKey, lost bool) error {
	l, err := m.load(ctx)
	if err != nil {
		return err
	}
	device, err := c.senderDevice(ctx, m, l, user, key)
	if err != nil || device == nil {
		return err
	}
	if sender := m.account() + " " + string(user); lost && c.mends.repairs.may(sender, time.Now()) {
		repaired := false
		err := m.olmWork(ctx, func(ctx context.Context, l *loaded) (err error) {
			if repaired, err = mayRepair(ctx, l.store, time.Now()); err != nil || !repaired {
				return err
			}
			return repairKeys(ctx, l.OlmMachine)
		})
		if err != nil || !repaired {
			c.mends.repairs.forget(sender)
		}
		if err != nil {
			return err
		}
	}
	name := m.account() + " " + string(key)
	if !c.mends.sessions.may(name, time.Now()) {
		return nil
	}
	if !c.mends.anySession.may(time.Now()) || c.claims.take([]id.SigningKey{device.SigningKey}, time.Now()) > 0 {
		c.mends.sessions.forget(name)
		return nil // it comes back with the next message that cannot be read
	}
	return newSession(ctx, m, l, device)
}

// senderDevice is the device of a user that has a key; nil when it is gone, or was never there. Where the store does not know it the homeserver is asked, but
// not for every key that somebody makes up.
func (c *Crypto) senderDevice(ctx context.Context, m *machine, l *loaded, user id.UserID, key id.SenderKey) (*id.Device, error) {
	find := func() (*id.Device, error) {
		device, err := l.store.FindDeviceByKey(ctx, user, key)
		if err != nil {
			return nil, fmt.Errorf("find the device of %s: %w", user, err)
		}
		if device != nil && device.Deleted {
			device = nil
		}
		return device, nil
	}
	device, err := find()
	if err != nil || device != nil {
		return device, err
	}
	if !c.mends.unknown.may(string(user), time.Now()) || !c.mends.anyUnknown.may(time.Now()) {
		return nil, nil
	}
	there, err := m.askIfHas(ctx, user, key)
	if err != nil {
		return nil, fmt.Errorf("ask for the devices of %s: %w", user, err)
	}
	if !there {
		return nil, nil
	}
	c.mends.unknown.forget(string(user))
	return find()
}

// repairedSecret holds when the one-time keys were last replaced, as JSON of repaired.
const repairedSecret id.Secret = "trestle.keys_repaired"

type repaired struct {
	At   time.Time     `json:"at"`
	Wait time.Duration `json:"wait"` // before the next time
}

// mayRepair says whether the one-time keys of a device may be replaced once more, and takes it as done: also a process that is ended again and again must
// not replace them at will.
func mayRepair(ctx context.Context, s secrets, now time.Time) (bool, error) {
	text, err := s.GetSecret(ctx, repairedSecret)
	if err != nil {
		return false, fmt.Errorf("read when the one-time keys were replaced: %w", err)
	}
	var before repaired
	if text != "" && json.Unmarshal([]byte(text), &before) == nil && now.Sub(before.At).Abs() < before.Wait {
		return false, nil
	}
	next := attempt{before.At, before.Wait}.next(now, repairEvery, repairSeldom)
	raw, err := json.Marshal(repaired{next.at, next.wait})
	if err == nil {
		err = s.PutSecret(ctx, repairedSecret, string(raw))
	}
	if err != nil {
		return false, fmt.Errorf("store when the one-time keys were replaced: %w", err)
	}
	return true, nil
}

// newSession makes a new Olm session with a device, and has the device take it with an empty message.
func newSession(ctx context.Context, m *machine, l *loaded, device *id.Device) error {
	user := device.UserID
	resp, err := l.Client.ClaimKeys(ctx, &mautrix.ReqClaimKeys{
		OneTimeKeys: mautrix.OneTimeKeysRequest{user: {device.DeviceID: id.KeyAlgorithmSignedCurve25519}}, Timeout: 10_000,
	})
	if err != nil {
		return fmt.Errorf("claim a one-time key of device %s of %s: %w", device.DeviceID, user, err)
	}
	for _, oneTime := range resp.OneTimeKeys[user][device.DeviceID] {
		if ok, err := signatures.VerifySignatureJSON(oneTime.RawData, user, device.DeviceID.String(), device.SigningKey); err != nil || !ok {
			return fmt.Errorf("%w: the one-time key of device %s of %s is not signed by it", ErrMismatch, device.DeviceID, user)
		}
		return m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
			operationOf(ctx).to.add(device)
			session, err := l.GetAccount().Internal.NewOutboundSession(device.IdentityKey, oneTime.Key)
			if err != nil {
				return fmt.Errorf("make a session with device %s of %s: %w", device.DeviceID, user, err)
			}
			now := time.Now()
			times := crypto.ExpirationMixin{TimeMixin: crypto.TimeMixin{CreationTime: now, LastEncryptedTime: now, LastDecryptedTime: now}}
			if err := l.store.AddSession(ctx, device.IdentityKey, &crypto.OlmSession{Internal: session, ExpirationMixin: times}); err != nil {
				return err
			}
			return l.SendEncryptedToDevice(ctx, device, event.ToDeviceDummy, event.Content{Parsed: &event.DummyEventContent{}})
		})
	}
	return nil // it has no keys left: it makes new ones when it is online
}
