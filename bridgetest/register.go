package bridgetest

import "regexp"

type registerRequest struct {
	Type         string  `json:"type"`
	Username     *string `json:"username"`
	InhibitLogin bool    `json:"inhibit_login"`
	DeviceID     string  `json:"device_id"`
	Name         string  `json:"initial_device_display_name"`
	Refresh      bool    `json:"refresh_token"`
}

func (hs *Homeserver) postRegister(c *call) (any, error) {
	var req registerRequest
	if err := c.json(&req); err != nil {
		return nil, err
	}
	as, err := hs.registeringService(c, &req)
	if err != nil {
		return nil, err
	}
	c.who.service = as
	if req.Username == nil || *req.Username == "" {
		return nil, badRequest("M_UNKNOWN", "Desired Username is missing or not a string")
	}
	user := "@" + *req.Username + ":" + hs.opts.ServerName
	if err := hs.registrable(as, *req.Username, user); err != nil {
		return nil, err
	}
	if hs.opts.Personality == SynapseOAuth && !req.InhibitLogin { // before the user exists
		return nil, badRequest(loginUnsupported, "This server uses OAuth2, so the inhibit_login parameter must be set to true for appservice registrations.")
	}
	if acc := hs.accounts[user]; acc != nil && acc.registered {
		return nil, badRequest("M_USER_IN_USE", "User ID already taken.")
	}
	acc := hs.ensureAccount(user, as)
	c.who.account = acc
	if req.InhibitLogin || as.reg.DeviceManagement && hs.opts.Personality == Tuwunel {
		out := map[string]any{"user_id": user}
		if hs.traits.homeServer {
			out["home_server"] = hs.opts.ServerName
		}
		return out, nil
	}
	if as.reg.NoLogin && hs.traits.family == synapse { // the user exists all the same
		return nil, badRequest(loginUnsupported, "This appservice has MSC4190 enabled, so the inhibit_login parameter must be set to true.")
	}
	return hs.loggedIn(acc, req.DeviceID, req.Name, req.Refresh, false), nil
}

// registeringService is the appservice that registers; people cannot.
func (hs *Homeserver) registeringService(c *call, req *registerRequest) (*appService, error) {
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
		if hs.traits.family == conduit {
			return nil, missingToken()
		}
		return nil, badRequest("M_UNKNOWN", "Appservice token must be provided when using a type of m.login.application_service")
	}
	as := hs.serviceByToken(token)
	if as == nil {
		return nil, unknownToken("Unrecognised access token")
	}
	return as, nil
}

// sound is the grammar of a localpart in the specification, with what was allowed once. Synapse does not look at it.
var sound = regexp.MustCompile(`^[0-9a-z\-.=_/+]+$`)

// maxUserID is the length of a user ID in bytes.
const maxUserID = 255

// registrable tells whether an appservice may register a localpart.
func (hs *Homeserver) registrable(as *appService, localpart, user string) error {
	inside := user == as.sender.id || localpart[0] != '@' && as.users.match(user)
	if hs.traits.family == synapse {
		if !inside {
			return badRequest("M_EXCLUSIVE", "Invalid user localpart for this application service.")
		}
		return nil
	}
	if !sound.MatchString(localpart) || len(user) > maxUserID {
		return badRequest("M_INVALID_USERNAME", "Username is invalid.")
	}
	switch {
	case inside:
		return nil
	case hs.traits.family == dendrite:
		return outsideNamespaces(as, user)
	}
	return badRequest("M_EXCLUSIVE", "Username is not in an appservice namespace.")
}
