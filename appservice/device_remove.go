package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// ErrDeviceKept says that a homeserver deletes a device only for its user's password, which a ghost has not.
var ErrDeviceKept = errors.New("the homeserver deletes no device for an appservice (MSC4190) and does not log the ghost in to do it itself (MSC2778): " +
	"allow io.element.msc4190 or device_management in the registration, or delete the device with the homeserver's own administration")

// RemoveDevice deletes the user's device, if it has one, and forgets it: when a ghost is removed, when the keys of its
// device are lost, and when a bridge is uninstalled. A device that is gone already counts as deleted, and so calling it
// again after an error or a crash ends what was begun. It talks to the homeserver, but needs no Start. The error is
// [ErrDeviceKept] where the homeserver deletes no devices; the device then stays known. The user itself stays registered,
// and gets another device when it speaks again.
func (i *Intent) RemoveDevice(ctx context.Context) error {
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := i.removeOwn(ctx); err != nil {
		return fmt.Errorf("remove the device of %s: %w", i.user, err)
	}
	g, err := i.ghost(ctx)
	if err != nil || g.DeviceID == "" {
		return err
	}
	if err := i.deleteDevice(ctx, id.DeviceID(g.DeviceID)); err != nil {
		return fmt.Errorf("remove device %s of %s: %w", g.DeviceID, i.user, err)
	}
	return i.update(ctx, func(g *store.Ghost) { g.DeviceID, g.DeviceMade = "", false })
}

// deleteDevice uses DELETE /devices/{id}: a homeserver with OAuth has no delete_devices.
func (i *Intent) deleteDevice(ctx context.Context, device id.DeviceID) error {
	cli := i.client("")
	_, err := cli.MakeRequest(ctx, http.MethodDelete, cli.BuildClientURL("v3", "devices", device), struct{}{}, nil)
	switch {
	case err == nil, errorCode(err) == codeNotFound:
		return nil
	case asksForPassword(err):
		i.as.log.Warn().Stringer("user_id", i.user).Stringer("device_id", device).
			Msg("The homeserver lacks MSC4190: it asks for a password before it deletes a ghost's device, and so the ghost is logged out instead")
		return i.logOutDevice(ctx, device)
	case errorCode(err) == codeUnrecognized:
		return fmt.Errorf("%w: %w", ErrDeviceKept, err)
	}
	if _, unknown := i.client("").Whoami(ctx); errorCode(err) == codeForbidden && errorCode(unknown) == codeForbidden {
		return nil // the homeserver has lost the user, and the device with it
	}
	return i.as.explain(err)
}

// asksForPassword says whether an error is a 401 without error code, which lists ways to prove who one is.
func asksForPassword(err error) bool {
	return errorStatus(err) == http.StatusUnauthorized && errorCode(err) == ""
}

// logOutDevice deletes a device with a token of its own, which is had by logging in as the device once more.
func (i *Intent) logOutDevice(ctx context.Context, device id.DeviceID) error {
	cli := i.client("")
	_, err := cli.MakeRequest(ctx, http.MethodGet, cli.BuildClientURL("v3", "devices", device), nil, nil)
	if errorCode(err) == codeNotFound {
		return nil // it was never made: the homeserver asks for the password all the same
	} else if err != nil {
		return fmt.Errorf("ask whether it is there: %w", i.as.explain(err))
	}
	flow, err := i.loginFlow(ctx)
	var login *deviceToken
	if err == nil {
		login, err = i.logIn(ctx, flow, device)
	}
	if errors.Is(err, errNoLogin) {
		return fmt.Errorf("%w: %w", ErrDeviceKept, err)
	} else if err != nil {
		return err
	}
	return i.logOut(ctx, login)
}
