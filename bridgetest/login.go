package bridgetest

import (
	"net/http"
	"strings"
	"time"
)

func (hs *Homeserver) getLogin(*call) (any, error) {
	return map[string]any{"flows": []map[string]string{{"type": "m.login.password"}, {"type": "m.login.application_service"}}}, nil
}

type loginRequest struct {
	Type       string `json:"type"`
	Identifier *struct {
		Type string `json:"type"`
		User string `json:"user"`
	} `json:"identifier"`
	Password string `json:"password"`
	DeviceID string `json:"device_id"`
	Name     string `json:"initial_device_display_name"`
	Refresh  bool   `json:"refresh_token"`
}

const loginUnsupported = "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED"

func (hs *Homeserver) postLogin(c *call) (any, error) {
	var req loginRequest
	if err := c.json(&req); err != nil {
		return nil, err
	}
	var as *appService
	var err error
	switch req.Type {
	case "m.login.password":
	case "m.login.application_service":
		if as, err = hs.loginService(c); err != nil {
			return nil, err
		}
	default:
		if req.Identifier == nil {
			return nil, badRequest("M_INVALID_PARAM", "Invalid login submission")
		}
		return nil, badRequest("M_UNKNOWN", "Unknown login type %s", req.Type)
	}
	if req.Identifier == nil || req.Identifier.Type != "m.id.user" || req.Identifier.User == "" {
		return nil, badRequest("M_INVALID_PARAM", "Invalid identifier in login submission")
	}
	user := req.Identifier.User
	if !strings.HasPrefix(user, "@") {
		user = "@" + user + ":" + hs.opts.ServerName
	}
	acc := hs.accounts[user]
	known := acc != nil && (acc.registered || as != nil && acc == as.sender)
	switch {
	case as == nil && (!known || acc.password == "" || acc.password != req.Password):
		return nil, forbidden("Invalid username or password")
	case as != nil && !hs.mayBe(as, user):
		return nil, hs.loginOutside(as, user)
	case !known && hs.traits.family == dendrite:
		acc = newAccount(user) // has a token, and is not registered all the same
	case !known && hs.traits.family == conduit:
		return nil, badRequest("M_INVALID_PARAM", "Called create_device for non-existent user %s", user)
	case !known:
		return nil, refuse(http.StatusNotFound, "M_UNKNOWN", "No row found (users)")
	}
	if err := hs.limitLogins(as, acc); err != nil {
		return nil, err
	}
	if err := acc.loginRefusal(); err != nil {
		return nil, err
	}
	return hs.loggedIn(acc, req.DeviceID, req.Name, req.Refresh, true), nil
}

// loginService is the appservice whose token a login carries.
func (hs *Homeserver) loginService(c *call) (*appService, error) {
	token, err := bearer(c.Request)
	if err != nil {
		return nil, err
	}
	if token == "" {
		if hs.traits.family == dendrite {
			return nil, refuse(http.StatusForbidden, "M_MISSING_TOKEN", "missing access token")
		}
		return nil, missingToken()
	}
	as := hs.serviceByToken(token)
	if as == nil {
		if hs.tokens[token] != nil {
			return nil, unknownToken("This login method is only valid for application services")
		}
		return nil, unknownToken("Invalid access token passed.")
	}
	c.who.service = as
	if as.reg.NoLogin && hs.traits.family == synapse || as.reg.DeviceManagement && hs.opts.Personality == Tuwunel {
		return nil, badRequest(loginUnsupported, "This appservice has MSC4190 enabled, so appservice login cannot be used.")
	}
	return as, nil
}

func (hs *Homeserver) loginOutside(as *appService, user string) error {
	switch hs.traits.family {
	case dendrite:
		return outsideNamespaces(as, user)
	case conduit:
		return badRequest("M_EXCLUSIVE", "Username is not in an appservice namespace.")
	}
	return forbidden("Invalid access_token")
}

// outsideNamespaces is Dendrite's.
func outsideNamespaces(as *appService, user string) error {
	localpart, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return badRequest("M_EXCLUSIVE", "Supplied username %s did not match any namespaces for application service ID: %s", localpart, as.reg.ID)
}

// tokenLife is how long a token lives that comes with another to renew it.
const tokenLife = 5 * time.Minute

// loggedIn makes a session and describes it.
func (hs *Homeserver) loggedIn(acc *account, deviceID, name string, refresh, wellKnown bool) map[string]any {
	s := hs.newSession(acc, deviceID)
	if d := acc.devices[s.device]; name != "" && d.name == nil {
		d.name = &name
	}
	out := map[string]any{"user_id": acc.id, "access_token": s.token, "device_id": s.device}
	if hs.traits.homeServer {
		out["home_server"] = hs.opts.ServerName
		if wellKnown {
			out["well_known"] = map[string]any{"m.homeserver": map[string]string{"base_url": hs.url + "/"}}
		}
	}
	if refresh && hs.traits.family == synapse {
		hs.limitLife(s, out)
	}
	return out
}

// limitLife lets a session's token expire, and gives out what a new one is had for.
func (hs *Homeserver) limitLife(s *session, answer map[string]any) {
	s.expires, s.refresh = hs.opts.Clock.Now().Add(tokenLife), "syr_"+randomLetters(24, letters)
	answer["refresh_token"], answer["expires_in_ms"] = s.refresh, tokenLife.Milliseconds()
}

// postRefresh changes a refresh token for a new pair; the old pair ends.
func (hs *Homeserver) postRefresh(c *call) (any, error) {
	var req struct {
		Token string `json:"refresh_token"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	for token, s := range hs.tokens {
		if req.Token == "" || s.refresh != req.Token {
			continue
		}
		delete(hs.tokens, token)
		renewed := hs.newSession(s.account, s.device)
		c.who.account, c.who.device = s.account, s.device
		out := map[string]any{"access_token": renewed.token}
		hs.limitLife(renewed, out)
		return out, nil
	}
	return nil, refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "refresh token is not known")
}

func (hs *Homeserver) postLogout(c *call) (any, error) {
	if c.who.service == nil {
		hs.dropDevice(c.who.account, c.who.device)
	}
	return struct{}{}, nil
}

func (hs *Homeserver) getWhoami(c *call) (any, error) {
	out := map[string]any{"user_id": c.user(), "is_guest": false}
	if c.who.device != "" {
		out["device_id"] = c.who.device
	}
	return out, nil
}
