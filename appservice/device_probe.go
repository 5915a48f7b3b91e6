package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

var (
	// errNoPut says that PUT /devices/{id} makes no device for a ghost on this homeserver.
	errNoPut = errors.New("the homeserver makes no device (MSC4190)")
	// errNoActing says that a device was made, and cannot be acted as.
	errNoActing = errors.New("the homeserver does not let the bridge act as the device (MSC4326)")
)

// findOut makes the user's device in the first way that the homeserver has: by PUT (MSC4190), else by login (MSC2778). What
// it cannot act as is deleted again. Only an answer about the way decides: an outage, a rate limit or a refusal of this one
// user is an error, and the next ghost asks again. The caller holds the user's lock and devicesLock. before says that the
// homeserver may have heard of the device already.
func (i *Intent) findOut(ctx context.Context, device id.DeviceID, before bool) (*deviceRecord, error) {
	found := deviceRecord{DeviceSupport: DeviceSupport{Method: DeviceNone}}
	var causes []error
	if i.as.cfg.DeviceMode != DeviceLogin {
		created, err := i.putAndAct(ctx, device)
		if err == nil && before && !created {
			// It may be there because of an earlier login, whose answer was lost: that says nothing of the next ghost's.
			return &deviceRecord{DeviceSupport: DeviceSupport{ActAs: true}}, nil
		}
		if err == nil {
			return i.as.remember(ctx, deviceRecord{DeviceSupport: DeviceSupport{Method: DeviceMSC4190, ActAs: true}})
		}
		if !errors.Is(err, errNoPut) && !errors.Is(err, errNoActing) {
			return nil, err
		}
		causes = append(causes, err)
	}
	if i.as.cfg.DeviceMode != DeviceMSC4190 {
		flow, err := i.logInAndAct(ctx, device, before)
		switch {
		case err == nil:
			found.Method, found.ActAs, found.Flow = DeviceLogin, true, flow
		case errors.Is(err, errNoActing):
			found.Method, found.Flow = DeviceLogin, flow
			causes = append(causes, err)
		case errors.Is(err, errNoLogin):
			causes = append(causes, err)
		default:
			return nil, err
		}
	}
	if err := errors.Join(causes...); err != nil {
		found.Cause = err.Error()
	}
	if !found.ActAs {
		i.as.log.Warn().Errs("causes", causes).Msg("The homeserver has no devices for ghosts: messages are sent without, and after a restart of the homeserver one may come twice")
	}
	return i.as.remember(ctx, found)
}

func (i *Intent) putAndAct(ctx context.Context, device id.DeviceID) (created bool, err error) {
	if created, err = i.putDevice(ctx, device); err != nil {
		return false, err
	}
	if acts, err := i.actsAs(ctx, device); err != nil || acts {
		return created, err
	}
	if err := i.deleteDevice(ctx, device); err != nil && !errors.Is(err, ErrDeviceKept) {
		return false, fmt.Errorf("delete device %s of %s, which is of no use: %w", device, i.user, err)
	}
	return false, errNoActing
}

func (i *Intent) logInAndAct(ctx context.Context, device id.DeviceID, before bool) (mautrix.AuthType, error) {
	flow, err := i.loginFlow(ctx)
	if err != nil {
		return "", err
	}
	login, err := i.logInAnew(ctx, flow, device, before)
	if err != nil {
		return "", err
	}
	acts, err := i.actsAs(ctx, device)
	if err != nil || acts {
		return flow, err
	}
	if err := i.logOut(ctx, login); err != nil {
		return "", err
	}
	return flow, errNoActing
}

// putDevice asks for a device, which may be there already. The request names the user and no device to act as, because to
// act as one that is not there fails. created is the homeserver's 201, and not its 200; Continuwuity and Tuwunel never say it.
// The error is errNoPut where the homeserver makes no devices.
func (i *Intent) putDevice(ctx context.Context, device id.DeviceID) (created bool, err error) {
	for again := false; ; again = true {
		cli := i.client("")
		_, resp, err := cli.MakeFullRequestWithResp(ctx, mautrix.FullRequest{
			Method: http.MethodPut, URL: cli.BuildClientURL("v3", "devices", device), RequestJSON: map[string]string{"display_name": deviceName},
		})
		i.unheard = i.unheard && errorCode(err) == codeLimit
		switch code := errorCode(err); {
		case err == nil:
			i.as.log.Debug().Stringer("user_id", i.user).Stringer("device_id", device).Bool("created", resp.StatusCode == http.StatusCreated).Msg("A ghost has its device")
			return resp.StatusCode == http.StatusCreated, nil
		case code == codeNotFound, isUnsupported(err), asksForPassword(err):
			return false, fmt.Errorf("%w: %w", errNoPut, err)
		case code != codeForbidden && code != codeInvalidParam:
			return false, fmt.Errorf("make device %s of %s: %w", device, i.user, i.as.explain(err))
		case again:
			return false, fmt.Errorf("%w: %w", errNoPut, err)
		}
		// Dendrite says so of every device that it does not have; the others, of a user that they do not have.
		if made, lost := i.register(ctx); lost != nil {
			return false, lost
		} else if !made {
			return false, fmt.Errorf("%w: %w", errNoPut, err)
		}
	}
}

// logInAnew is logIn that leaves one token to a device. The answer to an earlier login may have been lost, and its token
// with it: then the device is logged out first, which ends all of its tokens. It has no keys yet.
func (i *Intent) logInAnew(ctx context.Context, flow mautrix.AuthType, device id.DeviceID, before bool) (*deviceToken, error) {
	login, err := i.logInRegistered(ctx, flow, device)
	if err != nil || !before {
		return login, err
	}
	if err := i.logOut(ctx, login); err != nil {
		return nil, err
	}
	return i.logInRegistered(ctx, flow, device)
}

// logInRegistered is logIn of a user that the homeserver may have lost: it is registered again and tried again, once.
func (i *Intent) logInRegistered(ctx context.Context, flow mautrix.AuthType, device id.DeviceID) (*deviceToken, error) {
	login, err := i.logIn(ctx, flow, device)
	switch errorCode(err) {
	case codeForbidden, codeInvalidParam, codeUnknown:
	default:
		return login, err
	}
	if errors.Is(err, errNoLogin) || errorStatus(err) >= http.StatusInternalServerError {
		return nil, err
	}
	made, lost := i.register(ctx)
	if lost != nil {
		return nil, lost
	}
	if made {
		if login, err = i.logIn(ctx, flow, device); err == nil {
			return login, nil
		}
	}
	if code := errorCode(err); code == codeForbidden || code == codeInvalidParam || code == codeUnknown {
		return nil, fmt.Errorf("%w: %w", errNoLogin, err)
	}
	return nil, err
}

// actsAs asks whether the homeserver takes the bridge for the device: one that does not know the parameter ignores it.
func (i *Intent) actsAs(ctx context.Context, device id.DeviceID) (bool, error) {
	me, err := i.client(device).Whoami(ctx)
	switch {
	case err == nil:
		return me.DeviceID == device, nil
	case maybeUnknownDevice(err), isUnsupported(err):
		return false, nil
	}
	return false, fmt.Errorf("check device %s of %s: %w", device, i.user, i.as.explain(err))
}
