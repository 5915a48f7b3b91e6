package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// The names of appservice login: of the specification, and of MSC2778 before.
const (
	loginType    mautrix.AuthType = "m.login.application_service"
	loginTypeOld mautrix.AuthType = "uk.half-shot.msc2778.login.application_service"
)

// errNoLogin says that a homeserver does not log in the users of an appservice.
var errNoLogin = errors.New("the homeserver offers no login to appservices (MSC2778)")

// deviceToken is what a login gives: a token that is good for one device. It is never stored. Where the homeserver lets the
// bridge act as the device nobody needs it; otherwise it is used at once, to log out.
type deviceToken struct {
	device id.DeviceID
	token  string
}

// loginFlow asks under which name the homeserver offers appservice login (GET /login). The error is errNoLogin when it offers
// none.
func (i *Intent) loginFlow(ctx context.Context) (mautrix.AuthType, error) {
	flows, err := i.client("").GetLoginFlows(ctx)
	switch {
	case isUnsupported(err):
		return "", fmt.Errorf("%w: %w", errNoLogin, err)
	case err != nil:
		return "", fmt.Errorf("ask for the ways to log in: %w", err)
	case flows.HasFlow(loginType):
		return loginType, nil
	case flows.HasFlow(loginTypeOld):
		return loginTypeOld, nil
	}
	return "", fmt.Errorf("%w: it is not among the flows of GET /login", errNoLogin)
}

// logIn logs the user in with the bridge's own token (MSC2778), as a device that is made when it is not there. The error is
// errNoLogin where the homeserver does not do that.
func (i *Intent) logIn(ctx context.Context, flow mautrix.AuthType, device id.DeviceID) (*deviceToken, error) {
	cli := i.client("")
	localpart, _, _ := strings.Cut(string(i.user[1:]), ":")
	var resp struct {
		DeviceID    id.DeviceID `json:"device_id"`
		AccessToken string      `json:"access_token"`
	}
	// Doing it twice makes one device, because it has its ID already.
	_, err := cli.MakeRequest(withRepeat(ctx), http.MethodPost, cli.BuildClientURL("v3", "login"), map[string]any{
		"type":                        flow,
		"identifier":                  map[string]string{"type": "m.id.user", "user": localpart},
		"device_id":                   device,
		"initial_device_display_name": deviceName,
	}, &resp)
	i.unheard = i.unheard && errorCode(err) == codeLimit
	switch code := errorCode(err); {
	case code == "M_APPSERVICE_LOGIN_UNSUPPORTED" || code == "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED", isUnsupported(err):
		return nil, fmt.Errorf("%w: %w", errNoLogin, err)
	case err != nil:
		return nil, fmt.Errorf("log in as %s: %w", i.user, i.as.explain(err))
	case resp.AccessToken == "" || resp.DeviceID != device:
		return nil, fmt.Errorf("log in as %s: the answer has no token, or another device", i.user)
	}
	return &deviceToken{resp.DeviceID, resp.AccessToken}, nil
}

// logOut ends a login. The device, its keys and its other tokens go with it.
func (i *Intent) logOut(ctx context.Context, login *deviceToken) error {
	// Masquerading is for the bridge's own token alone: neither a user nor a device is named beside this one (MSC4326).
	cli := &mautrix.Client{
		HomeserverURL: i.as.homeserver, UserID: i.user, AccessToken: login.token, UserAgent: "Trestle",
		Client: i.as.http, Log: zerolog.Nop(), IgnoreRateLimit: true,
	}
	_, err := cli.MakeRequest(withRepeat(ctx), http.MethodPost, cli.BuildClientURL("v3", "logout"), struct{}{}, nil)
	if err != nil && errorCode(err) != "M_UNKNOWN_TOKEN" {
		return fmt.Errorf("log out device %s of %s: %w", login.device, i.user, err)
	}
	return nil
}
