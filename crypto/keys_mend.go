//go:build goolm

package crypto

import (
	"context"
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

const (
	// mendEvery is how often a new Olm session is made with the same device: each costs it a one-time key (client-server API, "Recovering from
	// undecryptable messages").
	mendEvery = time.Hour
	// repairEvery is how often all one-time keys of a device of the bridge are replaced.
	repairEvery = 10 * time.Minute
	// mendPatience is how long it may take.
	mendPatience = time.Minute
)

// mend makes good for a message that could not be decrypted, in the background: it makes a new Olm session with the sender, who then uses that; and when
// the message was for a one-time key that is not in the store, because that was put back to an older state, the homeserver gets new ones. It does not wait.
func (c *Crypto) mend(m *machine, user id.UserID, key id.SenderKey, cause error) {
	now := time.Now()
	repair := errors.Is(cause, olm.ErrBadMessageKeyID) && c.mends.may("keys "+m.account(), repairEvery, now)
	session := c.mends.may("session "+m.account()+" "+string(key), mendEvery, now)
	if !repair && !session {
		return
	}
	_, release := c.use(m.deviceKey) // it stays while it is mended
	c.running.Go(func() {
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
		err := m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
			if repair {
				if err := repairKeys(ctx, l.OlmMachine); err != nil {
					return err
				}
			}
			if session {
				return c.newSession(ctx, l, user, key)
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNoMachine) {
			c.log.Warn().Err(err).Str("account", m.account()).Stringer("with", user).Msg("An Olm session could not be mended")
		}
	})
}

// newSession makes a new Olm session with a device, and has the device take it with an empty message.
func (c *Crypto) newSession(ctx context.Context, l *loaded, user id.UserID, key id.SenderKey) error {
	device, err := l.store.FindDeviceByKey(ctx, user, key)
	if err == nil && (device == nil || device.Deleted) {
		device, err = nil, nil
		if _, err = l.FetchKeys(ctx, []id.UserID{user}, true); err == nil {
			device, err = l.store.FindDeviceByKey(ctx, user, key)
		}
	}
	if err != nil {
		return fmt.Errorf("find the device of %s: %w", user, err)
	}
	if device == nil || device.Deleted {
		return nil // it is gone, or was never there
	}
	if c.claims.take([]id.IdentityKey{device.IdentityKey}, time.Now()) > 0 {
		return nil // it comes back with the next message that cannot be read
	}
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
	}
	return nil // it has no keys left: it makes new ones when it is online
}
