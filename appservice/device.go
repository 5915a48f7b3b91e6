package appservice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// ErrNoDevices says that the homeserver cannot make devices for ghosts, or does not let the bridge act as them.
var ErrNoDevices = errors.New("the homeserver makes no devices for ghosts (MSC4190 with MSC4326): " +
	"put io.element.msc4190 and device_management into the registration, or set the device mode to none")

// noDevicesFor is how long a homeserver that has no devices is not asked again.
const noDevicesFor = time.Hour

// deviceSupport remembers that a homeserver has no devices for ghosts. That cannot be read from its versions.
type deviceSupport struct {
	mu    sync.Mutex
	until time.Time
}

func (d *deviceSupport) missing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until)
}

func (d *deviceSupport) lack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = time.Now().Add(noDevicesFor)
}

// deviceName is what people see in the list of a ghost's devices.
const deviceName = "Trestle"

// newDeviceID gives 12 random characters of A-Z and 2-7.
func newDeviceID() string { return rand.Text()[:12] }

// EnsureDevice gives the user a device, and returns its ID. With a device the homeserver remembers transaction IDs in its
// database. The ID is "" where there are no devices, with Config.DeviceMode none or, found out, auto.
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
	if i.as.cfg.DeviceMode == DeviceAuto && i.as.devices.missing() {
		return "", nil
	}
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
	if g.DeviceID == "" {
		if err := i.update(ctx, func(g *store.Ghost) { g.DeviceID = newDeviceID() }); err != nil {
			return "", err
		}
		if g, err = i.ghost(ctx); err != nil {
			return "", err
		}
	}
	device := id.DeviceID(g.DeviceID)
	cli := i.client("") // the device does not exist yet: to act as it would fail
	_, err = cli.MakeRequest(ctx, http.MethodPut, cli.BuildClientURL("v3", "devices", device), map[string]string{"display_name": deviceName}, nil)
	if err != nil {
		if status := errorStatus(err); status == http.StatusNotFound || status == http.StatusMethodNotAllowed ||
			errorCode(err) == codeUnrecognized || status == http.StatusUnauthorized && errorCode(err) == "" {
			return i.withoutDevice(err)
		}
		return "", fmt.Errorf("make device %s of %s: %w", device, i.user, i.as.explain(err))
	}
	me, err := i.client(device).Whoami(ctx)
	switch {
	case err != nil && errorCode(err) == "" || errorStatus(err) == http.StatusTooManyRequests || errorStatus(err) >= 500:
		return "", fmt.Errorf("check device %s of %s: %w", device, i.user, err)
	case err != nil:
		return i.withoutDevice(err)
	case me.DeviceID != device:
		return i.withoutDevice(errors.New("the homeserver did not act as the device"))
	}
	if err := i.update(ctx, func(g *store.Ghost) { g.DeviceMade = true }); err != nil {
		return "", err
	}
	return device, nil
}

func (i *Intent) withoutDevice(cause error) (id.DeviceID, error) {
	if i.as.cfg.DeviceMode != DeviceAuto {
		return "", fmt.Errorf("device of %s: %w: %w", i.user, ErrNoDevices, cause)
	}
	i.as.devices.lack()
	i.as.log.Warn().Err(cause).Stringer("user_id", i.user).Dur("ask_again_in", noDevicesFor).
		Msg("The homeserver makes no devices for ghosts: messages are sent without, and after a restart of the homeserver one may come twice")
	return "", nil
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
	return request(i.client(next))
}

// maybeUnknownDevice says whether an error could mean that the device is gone. Most of these codes mean other things too.
func maybeUnknownDevice(err error) bool {
	switch errorCode(err) {
	case "M_UNKNOWN_DEVICE", "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE", "M_INVALID_PARAM", codeForbidden, "M_EXCLUSIVE":
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

func (i *Intent) replaceDevice(ctx context.Context, old id.DeviceID) (id.DeviceID, error) {
	unlock, err := i.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	g, err := i.ghost(ctx)
	if err != nil {
		return "", err
	}
	if g.DeviceID == string(old) { // else somebody else was faster
		err = i.update(ctx, func(g *store.Ghost) { g.DeviceID, g.DeviceMade = newDeviceID(), false })
		if err != nil {
			return "", err
		}
	}
	return i.makeDevice(ctx)
}
