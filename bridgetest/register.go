package bridgetest

import (
	"net/http"
	"strings"
)

func (hs *Homeserver) getVersions(*call) (any, error) {
	return map[string]any{
		"versions": []string{
			"r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4",
			"v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
		},
		"unstable_features": map[string]bool{
			"org.matrix.e2e_cross_signing": true, "org.matrix.msc2285.stable": true, "fi.mau.msc2659.stable": true,
			"org.matrix.msc3916.stable": true,
		},
	}, nil
}

func (hs *Homeserver) getCapabilities(*call) (any, error) {
	return map[string]any{"capabilities": map[string]any{
		"m.room_versions":   map[string]any{"default": "11", "available": map[string]string{"11": "stable"}},
		"m.change_password": map[string]bool{"enabled": true},
		"m.set_displayname": map[string]bool{"enabled": true},
		"m.set_avatar_url":  map[string]bool{"enabled": true},
	}}, nil
}

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
}

const loginUnsupported = "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED"

func (hs *Homeserver) postLogin(c *call) (any, error) {
	var req loginRequest
	if err := c.json(&req); err != nil {
		return nil, err
	}
	var as *appService
	switch req.Type {
	case "m.login.password":
	case "m.login.application_service":
		token, err := bearer(c.Request)
		if err != nil {
			return nil, err
		}
		if token == "" {
			return nil, missingToken()
		}
		if as = hs.serviceByToken(token); as == nil {
			if hs.tokens[token] != nil {
				return nil, unknownToken("This login method is only valid for application services")
			}
			return nil, unknownToken("Invalid access token passed.")
		}
		c.who.service = as
		if as.reg.NoLogin {
			return nil, badRequest(loginUnsupported, "This appservice has MSC4190 enabled, so appservice login cannot be used.")
		}
	default:
		return nil, badRequest("M_UNKNOWN", "Unknown login type %s", req.Type)
	}
	if req.Identifier == nil || req.Identifier.Type != "m.id.user" || req.Identifier.User == "" {
		return nil, badRequest("M_INVALID_PARAM", "Invalid identifier in login submission")
	}
	user := req.Identifier.User
	if !strings.HasPrefix(user, "@") {
		user = "@" + user + ":" + hs.opts.ServerName
	}
	if as != nil && user != as.sender.id && !as.users.match(user) {
		return nil, forbidden("Invalid access_token")
	}
	acc := hs.accounts[user]
	known := acc != nil && (acc.registered || as != nil && acc == as.sender)
	if as != nil && !known {
		return nil, refuse(http.StatusNotFound, "M_UNKNOWN", "No row found (users)")
	}
	if as == nil && (!known || acc.password == "" || acc.password != req.Password) {
		return nil, forbidden("Invalid username or password")
	}
	return hs.loggedIn(acc, req.DeviceID, req.Name, true), nil
}

// loggedIn makes a session and describes it.
func (hs *Homeserver) loggedIn(acc *account, deviceID, name string, wellKnown bool) map[string]any {
	s := hs.newSession(acc, deviceID)
	if d := acc.devices[s.device]; name != "" && d.name == nil {
		d.name = &name
	}
	out := map[string]any{"user_id": acc.id, "access_token": s.token, "home_server": hs.opts.ServerName, "device_id": s.device}
	if wellKnown {
		out["well_known"] = map[string]any{"m.homeserver": map[string]string{"base_url": hs.url + "/"}}
	}
	return out
}

func (hs *Homeserver) postLogout(c *call) (any, error) {
	if c.who.service == nil {
		hs.dropDevice(c.who.account, c.who.device)
	}
	return struct{}{}, nil
}

func (hs *Homeserver) postRegister(c *call) (any, error) {
	var req struct {
		Type         string  `json:"type"`
		Username     *string `json:"username"`
		InhibitLogin bool    `json:"inhibit_login"`
		DeviceID     string  `json:"device_id"`
		Name         string  `json:"initial_device_display_name"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	token, err := bearer(c.Request)
	if err != nil {
		return nil, err
	}
	if req.Type != "m.login.application_service" {
		if token != "" {
			return nil, badRequest("M_UNKNOWN", "An access token should not be provided on requests to /register (except if type is m.login.application_service)")
		}
		return nil, forbidden("Registration has been disabled. Only m.login.application_service registrations are allowed.")
	}
	if token == "" {
		return nil, badRequest("M_UNKNOWN", "Appservice token must be provided when using a type of m.login.application_service")
	}
	as := hs.serviceByToken(token)
	if as == nil {
		return nil, unknownToken("Unrecognised access token")
	}
	c.who.service = as
	if req.Username == nil || *req.Username == "" {
		return nil, badRequest("M_UNKNOWN", "Desired Username is missing or not a string")
	}
	user := "@" + *req.Username + ":" + hs.opts.ServerName
	if user != as.sender.id && (strings.HasPrefix(*req.Username, "@") || !as.users.match(user)) {
		return nil, badRequest("M_EXCLUSIVE", "Invalid user localpart for this application service.")
	}
	if acc := hs.accounts[user]; acc != nil && acc.registered {
		return nil, badRequest("M_USER_IN_USE", "User ID already taken.")
	}
	acc := hs.ensureAccount(user, as)
	c.who.account = acc
	if req.InhibitLogin {
		return map[string]any{"user_id": user, "home_server": hs.opts.ServerName}, nil
	}
	if as.reg.NoLogin { // the user exists all the same
		return nil, badRequest(loginUnsupported, "This appservice has MSC4190 enabled, so the inhibit_login parameter must be set to true.")
	}
	return hs.loggedIn(acc, req.DeviceID, req.Name, false), nil
}

func (hs *Homeserver) getWhoami(c *call) (any, error) {
	out := map[string]any{"user_id": c.user(), "is_guest": false}
	if c.who.device != "" {
		out["device_id"] = c.who.device
	}
	return out, nil
}
