package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// ownDevice is a device that a user of the bridge has where the bridge cannot act as devices (MSC4326): it has logged in (MSC2778), and its
// token is kept, for keys and nothing else. It is stored without the token first, so that a login whose answer was lost is ended by the next.
type ownDevice struct {
	Device id.DeviceID `json:"device"`
	Token  string      `json:"token,omitempty"`
}

func ownSetting(user id.UserID) string { return "device.own " + string(user) }

// KeyDevice gives the user the device that keys belong to. That is the device of [Intent.EnsureDevice] where the homeserver lets the bridge
// act as it. Elsewhere it is one that logs in, with a token of its own that [Intent.Client] and [Intent.SyncKeys] use. [ErrNoDevices] where it
// can do neither.
func (i *Intent) KeyDevice(ctx context.Context) (id.DeviceID, error) {
	if own := i.own.Load(); own != nil {
		return own.Device, nil
	}
	device, err := i.EnsureDevice(ctx)
	if err == nil && device != "" || err != nil && !errors.Is(err, ErrNoDevices) {
		return device, err
	}
	s, supportErr := i.as.support(ctx)
	switch {
	case supportErr != nil:
		return "", supportErr
	case s == nil || s.Method != DeviceLogin:
		return "", ErrNoDevices
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	return i.logInOwn(ctx, s.Flow)
}

// logInOwn is for who holds the user's lock.
func (i *Intent) logInOwn(ctx context.Context, flow mautrix.AuthType) (id.DeviceID, error) {
	if own := i.own.Load(); own != nil {
		return own.Device, nil
	}
	own, err := i.readOwn(ctx)
	if err != nil {
		return "", err
	}
	if own.Token == "" {
		before := own.Device != ""
		if !before {
			own.Device = id.DeviceID(newDeviceID())
			if err := i.writeOwn(ctx, &own); err != nil {
				return "", err
			}
		}
		login, err := i.logInAnew(ctx, flow, own.Device, before)
		if err != nil {
			return "", err
		}
		own.Token = login.token
		if err := i.writeOwn(ctx, &own); err != nil {
			return "", err
		}
	}
	i.own.Store(&own)
	return own.Device, nil
}

func (i *Intent) readOwn(ctx context.Context) (own ownDevice, err error) {
	value, err := i.as.store.Setting(ctx, ownSetting(i.user))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return own, nil
	case err == nil:
		err = json.Unmarshal(value, &own)
	}
	if err != nil {
		return ownDevice{}, fmt.Errorf("read the device of %s: %w", i.user, err)
	}
	return own, nil
}

// writeOwn stores the device; nil forgets it.
func (i *Intent) writeOwn(ctx context.Context, own *ownDevice) error {
	var value []byte
	if own != nil {
		var err error
		if value, err = json.Marshal(own); err != nil {
			return err
		}
	}
	err := i.as.store.Commit(ctx, i.as.epoch, func(tx *store.Tx) error { return tx.PutSetting(ownSetting(i.user), value) })
	if err != nil {
		return fmt.Errorf("write the device of %s: %w", i.user, err)
	}
	return nil
}

// forgetOwn makes the user one that has no device of its own, when the homeserver has ended the token.
func (i *Intent) forgetOwn(ctx context.Context, device id.DeviceID) error {
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if own := i.own.Load(); own == nil || own.Device != device {
		return nil
	}
	if err := i.writeOwn(ctx, nil); err != nil {
		return err
	}
	i.own.Store(nil)
	return nil
}

// removeOwn logs the user's own device out, if it has one. The caller holds the user's lock.
func (i *Intent) removeOwn(ctx context.Context) error {
	own, err := i.readOwn(ctx)
	if err != nil || own.Device == "" {
		return err
	}
	if own.Token != "" {
		err = i.logOut(ctx, &deviceToken{own.Device, own.Token})
	} else {
		err = i.logOutDevice(ctx, own.Device)
	}
	if err != nil {
		return err
	}
	if err := i.writeOwn(ctx, nil); err != nil {
		return err
	}
	i.own.Store(nil)
	return nil
}

// Client gives a mautrix client that acts as one of the user's devices, for mautrix's own machinery: requests of encryption. It has the
// transport of the framework, and makes every request once. A device that [Intent.KeyDevice] has logged in has its own token; masquerading is
// for the bridge's token alone (MSC4326).
func (i *Intent) Client(device id.DeviceID) *mautrix.Client {
	cli := i.client(device)
	own := i.own.Load()
	if s := i.as.devices.known.Load(); own == nil && (s == nil || !s.ActAs) { // perhaps of an earlier process
		if known, err := i.readOwn(context.Background()); err == nil && known.Token != "" {
			i.own.CompareAndSwap(nil, &known)
			own = i.own.Load()
		}
	}
	if own != nil && own.Device == device {
		cli.AccessToken, cli.SetAppServiceUserID, cli.SetAppServiceDeviceID = own.Token, false, false
	}
	return cli
}
