//go:build goolm

package crypto

import (
	"context"
	"fmt"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// least is what mautrix calls it. A user's keys may change, as those of people who lose them do: then their devices are still signed by their owner.
// There is nobody to ask what it means, and clients go on as well, with a remark.
func (t Trust) least() id.TrustState {
	switch t {
	case TrustAny:
		return id.TrustStateUnset
	case TrustCrossSigned:
		return id.TrustStateCrossSignedUntrusted
	}
	return id.TrustStateCrossSignedVerified
}

// judge says whether the sender's device is trusted enough for an event that was decrypted, and tells the event how far it is. No lock is held. A
// device that is not known, or not well enough, is asked for: its user may have signed it a moment ago.
func (m *machine) judge(ctx context.Context, ev *event.Event, o *opening) error {
	l, err := m.load(ctx)
	if err != nil {
		return err
	}
	if o.session == nil {
		return fmt.Errorf("%w: nobody knows whose key it was encrypted with", ErrMismatch)
	}
	least := m.c.opts.Receive.least()
	device := o.device
	trust, err := m.trust(ctx, l, ev.Sender, o.session, device)
	if err == nil && trust >= id.TrustStateUnset && (device == nil || trust < least) {
		trust, device, err = m.judgeAnew(ctx, l, ev.Sender, o.session)
	}
	switch {
	case err != nil:
		return fmt.Errorf("find out how far the device of %s is trusted: %w", ev.Sender, err)
	case trust < id.TrustStateUnset:
		return fmt.Errorf("%w: its key is not that of the device", ErrMismatch)
	case trust < least:
		return fmt.Errorf("%w: its trust is %s, and encryption.receive asks for %s", ErrUntrusted, trust, m.c.opts.Receive)
	}
	ev.Mautrix.TrustState, ev.Mautrix.TrustSource = trust, device
	return nil
}

// trust is how far a session is trusted to be of a device of this user.
func (m *machine) trust(ctx context.Context, l *loaded, user id.UserID, session *crypto.InboundGroupSession, device *id.Device) (id.TrustState, error) {
	signing, identity := l.GetAccount().Keys()
	switch {
	case session.SigningKey == signing && session.SenderKey == identity && user == m.user:
		return id.TrustStateVerified, nil
	case device == nil:
		return id.TrustStateUnknownDevice, nil
	case device.SigningKey != session.SigningKey || device.IdentityKey != session.SenderKey:
		return id.TrustStateDeviceKeyMismatch, nil
	}
	return l.ResolveTrustContext(ctx, device)
}

// judgeAnew judges by what is known once nobody asks for the user's devices any more, who has perhaps written half of the answer, and asks unless that was
// done a moment ago.
func (m *machine) judgeAnew(ctx context.Context, l *loaded, user id.UserID, session *crypto.InboundGroupSession) (trust id.TrustState, device *id.Device, err error) {
	unlock, err := m.c.asking.Lock(ctx, string(user))
	if err != nil {
		return trust, nil, err
	}
	defer unlock()
	least := m.c.opts.Receive.least()
	for _, ask := range []bool{false, true} {
		if ask {
			if may, err := m.c.mayAsk(ctx, user); err != nil || !may {
				return trust, device, err
			}
			err = m.ask(ctx, user)
		}
		if err == nil {
			device, err = l.store.deviceWith(ctx, user, session.SenderKey, session.SigningKey)
		}
		if err == nil {
			trust, err = m.trust(ctx, l, user, session, device)
		}
		if err != nil || device != nil && trust >= least {
			break
		}
	}
	return trust, device, err
}
