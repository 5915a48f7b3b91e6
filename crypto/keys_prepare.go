//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

// errDeviceTaken says that the homeserver has other keys under the device's ID, those of an account that the store has lost.
var errDeviceTaken = errors.New("the homeserver has keys of this device that are not those of the store")

// Prepare gives a user of the bridge a device, with an identity that the user's cross-signing keys have signed, one-time keys and a fallback key on
// the homeserver. It may be called again and again, and costs nothing when that was done in this process.
//
// Each step is stored before the homeserver hears of it, so that whenever the process ends the next one goes on with the same identity. Keys belong
// to a device: when the homeserver has lost it, or the store its keys, the user gets another device.
func (c *Crypto) Prepare(ctx context.Context, user id.UserID) error {
	if err := c.sureOfStore(ctx); err != nil {
		return fmt.Errorf("prepare %s for encryption: %w", user, err)
	}
	ghost := c.as.Ghost(user)
	prepare := func() error {
		return c.withKeyDevice(ctx, user, func(device id.DeviceID) error { return c.prepare(ctx, user, device) })
	}
	err := prepare()
	if errors.Is(err, errDeviceTaken) {
		c.log.Warn().Stringer("user_id", user).Msg("The keys of a ghost's device are lost; it gets another device")
		if err = ghost.RemoveDevice(ctx); err == nil {
			err = prepare()
		}
	}
	if err != nil {
		return fmt.Errorf("prepare %s for encryption: %w", user, c.as.Explain(err))
	}
	return nil
}

// withKeyDevice runs requests as the device that the user's keys belong to. One that the bridge acts as is replaced when the homeserver has lost it.
func (c *Crypto) withKeyDevice(ctx context.Context, user id.UserID, request func(device id.DeviceID) error) error {
	ghost := c.as.Ghost(user)
	device, err := ghost.KeyDevice(ctx)
	if err != nil {
		return err
	}
	if !ghost.Client(device).SetAppServiceDeviceID {
		return request(device) // it has a token of its own
	}
	return ghost.WithDevice(ctx, func(cli *mautrix.Client) error { return request(cli.DeviceID) })
}

func (c *Crypto) prepare(ctx context.Context, user id.UserID, device id.DeviceID) error {
	key := deviceKey{user, device}
	c.syncs.need(key)
	if _, done := c.prepared.Load(key); done {
		return nil
	}
	m, release := c.use(key)
	defer release()
	unlock, err := m.lockOlm(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, done := c.prepared.Load(key); done {
		return nil
	}
	err = m.olmWorkLocked(ctx, true, func(ctx context.Context, l *loaded) error {
		signer := c.signer(l, nil)
		if !l.GetAccount().Shared {
			if err := signer.checkDevice(ctx); err != nil {
				return err
			}
		}
		if err := signer.ensure(ctx); err != nil {
			return err
		}
		// Also when the keys were shared before: what the homeserver told of them while the bridge was away is lost.
		if err := shareKeys(ctx, l.OlmMachine); err != nil {
			return err
		}
		if signer.adopted {
			defer m.discard() // as in resetCrossSigning
		}
		return signer.signDevice(ctx)
	})
	if err == nil {
		c.prepared.Store(key, struct{}{})
	}
	return err
}

// ResetCrossSigning gives a user of the bridge new cross-signing keys in place of those that the homeserver has, and signs its device with them. It is
// for an administrator: whoever has verified the user must do so again. Where the homeserver wants it to be approved in a browser (MSC4312), the
// address is logged, and the approval is waited for, up to ten minutes. Until the homeserver has taken the new keys, those before stay in use; whoever
// tries again goes on with the same new ones.
func (c *Crypto) ResetCrossSigning(ctx context.Context, user id.UserID) error {
	err := c.withKeyDevice(ctx, user, func(device id.DeviceID) error { return c.resetCrossSigning(ctx, deviceKey{user, device}) })
	if err != nil {
		return fmt.Errorf("reset cross-signing of %s: %w", user, c.as.Explain(err))
	}
	return c.Prepare(ctx, user)
}

func (c *Crypto) resetCrossSigning(ctx context.Context, key deviceKey) error {
	m, release := c.use(key)
	defer release()
	unlock, err := m.lockOlm(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c.prepared.Delete(key)
	// mautrix keeps the device's signatures for as long as its machine lives, and would send the old ones (MSC4147).
	defer m.discard()
	return m.olmWorkLocked(ctx, true, func(ctx context.Context, l *loaded) error {
		signer := c.signer(l, func(url string) {
			c.log.Warn().Stringer("user_id", key.user).Str("url", url).Msg("New cross-signing keys must be approved: open the address in a browser")
		})
		if err := signer.reset(ctx); err != nil {
			return err
		}
		if !l.GetAccount().Shared {
			return nil // its first upload has the signature
		}
		return signer.signDevice(ctx)
	})
}

// RecoveryKey makes a recovery key of a user of the bridge, with which its cross-signing keys, which are then kept on the homeserver (secret storage),
// can be got back by any client. It is shown once: [ErrRecoveryKey] says that one was made before.
func (c *Crypto) RecoveryKey(ctx context.Context, user id.UserID) (string, error) {
	if err := c.Prepare(ctx, user); err != nil {
		return "", err
	}
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return "", err
	}
	defer release()
	var recovery string
	err = m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		recovery, err = c.signer(l, nil).recoveryKey(ctx)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("recovery key of %s: %w", user, c.as.Explain(err))
	}
	return recovery, nil
}

func (c *Crypto) signer(l *loaded, tell func(url string)) *crossSigner {
	user := l.Client.UserID
	return &crossSigner{
		mach: l.OlmMachine, secrets: c.secretsOf(user), tell: tell, pause: approvalPause, patience: approvalPatience,
		ask: user == c.as.Bot().UserID(), doubt: c.witness.doubted(),
	}
}

// secretsOf is where what belongs to a user is kept, whatever its devices.
func (c *Crypto) secretsOf(user id.UserID) secrets {
	return &keyStore{SQLCryptoStore: crypto.NewSQLCryptoStore(c.keys, dbutil.NoopLogger, string(user), "", c.opts.PickleKey), c: c}
}

// loadIdentity gives a machine what it signs and trusts with. It only reads.
func (c *Crypto) loadIdentity(ctx context.Context, l *loaded) error {
	_, err := c.signer(l, nil).load(ctx)
	return pickleError(err)
}
