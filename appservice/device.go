package appservice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// The error codes that tell of users and devices, beside those of router.go.
const (
	codeInvalidParam  = "M_INVALID_PARAM"
	codeExclusive     = "M_EXCLUSIVE"
	codeUnknownDevice = "M_UNKNOWN_DEVICE"
	codeLimit         = "M_LIMIT_EXCEEDED"
	// codeUnknownDeviceOld is what codeUnknownDevice was called before MSC4326 was accepted.
	codeUnknownDeviceOld = "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE"
)

// deviceName is what people see in the list of a ghost's devices.
const deviceName = "Trestle"

// newDeviceID gives 12 random characters of A-Z and 2-7.
func newDeviceID() string { return rand.Text()[:12] }

// EnsureDevice gives the user a device, and returns its ID. With a device the homeserver remembers transaction IDs in its
// database. Keys belong to an ID: a device that the homeserver has lost is replaced by one with another ID, and never made
// again under the same. The ID is "" where requests cannot name a device, with Config.DeviceMode none, login or auto; with
// the others that is [ErrNoDevices].
func (i *Intent) EnsureDevice(ctx context.Context) (id.DeviceID, error) {
	if i.as.cfg.DeviceMode == DeviceNone {
		return "", nil
	}
	g, err := i.ghost(ctx)
	if err != nil {
		return "", err
	}
	if g.DeviceMade {
		return id.DeviceID(g.DeviceID), nil
	}
	before := i.as.devices.outdated()
	if before == nil {
		if s, err := i.as.support(ctx); err != nil {
			return "", err
		} else if s != nil && !s.ActAs {
			return "", i.withoutDevice(s)
		}
		before = i.as.devices.outdated() // of an earlier process
	}
	if before == nil {
		return i.firstDevice(ctx)
	}
	// One looks whether the homeserver has devices now. Neither the others nor, when that fails, the one are held up: there
	// were none until now.
	var device id.DeviceID
	done := i.as.devices.look(func() error {
		var err error
		if device, err = i.firstDevice(ctx); err != nil {
			i.as.log.Debug().Err(err).Msg("Whether the homeserver has devices now could not be found out")
		}
		return err
	})
	if !done {
		return "", i.withoutDevice(before)
	}
	return device, nil
}

// firstDevice is EnsureDevice of a user that has no device.
func (i *Intent) firstDevice(ctx context.Context) (id.DeviceID, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return "", err
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	return i.makeDevice(ctx)
}

// makeDevice makes the device whose ID is in the store, or else a new one. The ID is stored before the homeserver hears
// of it, so that a lost answer leads to the same device. The caller holds the user's lock.
func (i *Intent) makeDevice(ctx context.Context) (id.DeviceID, error) {
	g, err := i.ghost(ctx)
	if err != nil {
		return "", err
	}
	if g.DeviceMade {
		return id.DeviceID(g.DeviceID), nil
	}
	before := g.DeviceID != "" && !i.unheard // the answer to an earlier request may have been lost
	if g.DeviceID == "" {
		i.unheard = true
		if err := i.update(ctx, func(g *store.Ghost) { g.DeviceID = newDeviceID() }); err != nil {
			return "", err
		}
		if g, err = i.ghost(ctx); err != nil {
			return "", err
		}
	}
	device := id.DeviceID(g.DeviceID)
	s, err := i.makeOrFindOut(ctx, device, before)
	if err != nil {
		return "", err
	}
	if !s.ActAs { // what was made to find that out is gone again
		if err := i.update(ctx, func(g *store.Ghost) { g.DeviceID = "" }); err != nil {
			return "", err
		}
		return "", i.withoutDevice(s)
	}
	if err := i.update(ctx, func(g *store.Ghost) { g.DeviceMade = true }); err != nil {
		return "", err
	}
	return device, nil
}

// makeOrFindOut makes the device as devices are made on this homeserver. Where that is not known, or no longer true, one
// ghost finds it out, and the others wait for it.
func (i *Intent) makeOrFindOut(ctx context.Context, device id.DeviceID, before bool) (*deviceRecord, error) {
	s, err := i.as.support(ctx)
	if err != nil {
		return nil, err
	}
	if s != nil {
		err := i.make(ctx, s, device, before)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errNoPut) && !errors.Is(err, errNoLogin) {
			return nil, err
		}
		i.as.devices.doubt(s)
	}
	unlock, err := i.as.locks.Lock(ctx, devicesLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err = i.as.knownSupport(ctx); err != nil {
		return nil, err
	} else if s != nil { // somebody else was faster
		return s, i.make(ctx, s, device, before)
	}
	return i.findOut(ctx, device, before)
}

func (i *Intent) make(ctx context.Context, s *deviceRecord, device id.DeviceID, before bool) error {
	switch {
	case !s.ActAs:
		return nil
	case s.Method == DeviceMSC4190:
		_, err := i.putDevice(ctx, device)
		return err
	}
	_, err := i.logInAnew(ctx, s.Flow, device, before) // the bridge acts as the device: nobody needs its token
	return err
}

// withoutDevice is no error where messages may go without a device.
func (i *Intent) withoutDevice(s *deviceRecord) error {
	if mode := i.as.cfg.DeviceMode; mode == DeviceAuto || mode == s.Method {
		return nil
	}
	// The causes are in words alone: their error codes are not about the request that needs the device.
	return fmt.Errorf("device of %s: %w: %s", i.user, ErrNoDevices, s.Cause)
}

// WithDevice runs requests as the user's device, which is made if there is none: the client has its ID, or none where the homeserver has no devices.
// A homeserver that has lost the user or the device gets a new one, once, and request runs again as that: keys belong to a device.
func (i *Intent) WithDevice(ctx context.Context, request func(cli *mautrix.Client) error) error {
	return i.withDevice(ctx, request)
}

// withDevice runs a request as the user's device. A homeserver that has lost the user or the device gets a new one, once.
func (i *Intent) withDevice(ctx context.Context, request func(cli *mautrix.Client) error) error {
	return i.registered(ctx, func() error { return i.tryDevice(ctx, request) })
}

func (i *Intent) tryDevice(ctx context.Context, request func(cli *mautrix.Client) error) error {
	device, err := i.EnsureDevice(ctx)
	if err != nil {
		return err
	}
	err = request(i.client(device))
	if err == nil || device == "" || !maybeUnknownDevice(err) || !i.deviceGone(ctx, device) {
		return err
	}
	i.as.log.Warn().Stringer("user_id", i.user).Stringer("device_id", device).Msg("The homeserver no longer has a ghost's device; a new one is made")
	next, newErr := i.replaceDevice(ctx, device)
	if newErr != nil {
		return errors.Join(err, newErr)
	}
	err = request(i.client(next))
	if err != nil && next != "" && maybeUnknownDevice(err) && i.deviceGone(ctx, next) {
		// It takes devices and does not know them then. Whoever comes next finds out what it really does.
		i.as.devices.doubt(i.as.devices.known.Load())
		return errors.Join(err, i.forgetDevice(ctx, next))
	}
	return err
}

// maybeUnknownDevice says whether an error could mean that the device is gone. Most of these codes mean other things too.
func maybeUnknownDevice(err error) bool {
	switch errorCode(err) {
	case codeUnknownDevice, codeUnknownDeviceOld, codeInvalidParam, codeForbidden, codeExclusive:
		return true
	}
	return false
}

// deviceGone asks whoami: the device is gone when the homeserver knows the user, but not the user with that device.
func (i *Intent) deviceGone(ctx context.Context, device id.DeviceID) bool {
	_, err := i.client(device).Whoami(ctx)
	if !maybeUnknownDevice(err) {
		return false
	}
	_, err = i.client("").Whoami(ctx)
	return err == nil
}

// forgetDevice makes the user one that has no device.
func (i *Intent) forgetDevice(ctx context.Context, device id.DeviceID) error {
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := i.ghost(ctx)
	if err != nil || g.DeviceID != string(device) {
		return err
	}
	return i.update(ctx, func(g *store.Ghost) { g.DeviceID, g.DeviceMade = "", false })
}

func (i *Intent) replaceDevice(ctx context.Context, old id.DeviceID) (id.DeviceID, error) {
	if err := i.forgetDevice(ctx, old); err != nil { // unless somebody else was faster
		return "", err
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	return i.makeDevice(ctx)
}
