package bridgetest

import (
	"errors"
	"net/http"
	"strings"
)

// identify finds out as whom a request is made.
func (hs *Homeserver) identify(r *http.Request) (identity, error) {
	token, err := bearer(r)
	if err != nil {
		return identity{}, err
	}
	if token == "" {
		return identity{}, missingToken()
	}
	if s := hs.tokens[token]; s != nil { // user_id is ignored in silence
		who := identity{account: s.account, device: s.device}
		return who, hs.sessionRefusal(s)
	}
	as := hs.serviceByToken(token)
	if as == nil {
		return identity{}, unknownToken("Invalid access token passed.")
	}
	who := identity{service: as, account: as.sender}
	switch hs.traits.family {
	case dendrite:
		return hs.masqueradeDendrite(r, who)
	case conduit:
		return hs.masqueradeConduit(r, who)
	}
	return hs.masqueradeSynapse(r, who)
}

// sessionRefusal is why a login does not count: it ended, or its user is locked.
func (hs *Homeserver) sessionRefusal(s *session) error {
	switch {
	case s.account.moderation == Locked:
		return lockedOut()
	case !s.expires.IsZero() && !hs.opts.Clock.Now().Before(s.expires):
		e := unknownToken("Access token has expired")
		e.extra = map[string]any{"soft_logout": true}
		return e
	}
	return nil
}

// mayBe tells whether a user is in the namespaces of an appservice, or is its sender.
func (hs *Homeserver) mayBe(as *appService, user string) bool {
	return user == as.sender.id || as.users.match(user) && strings.HasSuffix(user, ":"+hs.opts.ServerName)
}

// assertedDevice is the device that a request names, and whether it names one.
func assertedDevice(r *http.Request) (device string, named bool) {
	query := r.URL.Query()
	for _, key := range []string{"org.matrix.msc3202.device_id", "device_id"} {
		if query.Has(key) {
			return query.Get(key), true
		}
	}
	return "", false
}

func (hs *Homeserver) masqueradeSynapse(r *http.Request, who identity) (identity, error) {
	user := r.URL.Query().Get("user_id")
	if user != "" && user != who.service.sender.id {
		if !hs.mayBe(who.service, user) {
			return identity{service: who.service}, forbidden("Application service cannot masquerade as this user (%s).", user)
		}
		acc := hs.accounts[user]
		if acc == nil || !acc.registered {
			return identity{service: who.service}, forbidden("Application service has not registered this user (%s)", user)
		}
		who.account = acc
	}
	device, named := assertedDevice(r)
	if !named {
		return who, nil
	}
	if user == "" {
		return who, errors.New("a device without a user") // 500, as in Synapse
	}
	if who.account.devices[device] == nil {
		return who, badRequest("ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE",
			"Application service trying to use a device that doesn't exist ('%s' for %s)", device, who.account.id)
	}
	who.device = device
	return who, nil
}

// masqueradeDendrite gives everybody a device that is none, and does not look at the one that the request names.
func (hs *Homeserver) masqueradeDendrite(r *http.Request, who identity) (identity, error) {
	user := r.URL.Query().Get("user_id")
	if user == "" {
		who.device = who.service.reg.SenderLocalpart
		return who, nil
	}
	acc := hs.accounts[user]
	if !hs.mayBe(who.service, user) || acc == nil || !acc.registered && acc != who.service.sender {
		return identity{service: who.service}, forbidden("Forbidden: appservice has not registered this user")
	}
	who.account, who.device = acc, "AS_Device"
	return who, nil
}

// masqueradeConduit does not ask whether the user is registered.
func (hs *Homeserver) masqueradeConduit(r *http.Request, who identity) (identity, error) {
	if user := r.URL.Query().Get("user_id"); user != "" {
		if !hs.mayBe(who.service, user) {
			return identity{service: who.service}, badRequest("M_EXCLUSIVE", "User is not in namespace.")
		}
		if who.account = hs.accounts[user]; who.account == nil {
			who.account = newAccount(user) // of this request alone: nothing but the namespace stands behind it
		}
	}
	device, named := assertedDevice(r)
	if !named {
		return who, nil
	}
	if who.account.devices[device] == nil {
		if hs.opts.Personality == Tuwunel {
			return who, badRequest("M_INVALID_PARAM", "Unknown device for user.")
		}
		return who, forbidden("Device does not exist for user or appservice cannot masquerade as this device.")
	}
	who.device = device
	return who, nil
}

// bearer returns the access token of a request, which Synapse takes from the query too, but not from both.
func bearer(r *http.Request) (string, error) {
	header, query := r.Header.Get("Authorization"), r.URL.Query()
	if header != "" && query.Has("access_token") {
		return "", refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "Mixing Authorization headers and access_token query parameters.")
	}
	if token, found := strings.CutPrefix(header, "Bearer "); found {
		return token, nil
	}
	return query.Get("access_token"), nil
}
