package bridgetest

import (
	"fmt"
	"net/http"

	"maunium.net/go/mautrix/id"
)

// Moderation is what an administrator has done to a user.
type Moderation int

const (
	// Unmoderated users may do everything.
	Unmoderated Moderation = iota
	// Suspended users (MSC3823) may not send, join, invite, create rooms or change their profile: 403 M_USER_SUSPENDED. They
	// may leave, redact what they sent, and read.
	Suspended
	// Locked users (MSC3939) may not log in, and their logins are refused: 401 M_USER_LOCKED with soft_logout. An appservice
	// goes on acting as its locked ghost.
	Locked
	// Deactivated users have left all rooms (Synapse takes a moment for that, which is not there here), have no logins, and get
	// none: 403 M_USER_DEACTIVATED. An appservice goes on acting as its deactivated ghost, also joins rooms with it, and cannot
	// register it again.
	Deactivated
)

// Moderate does to a user what an administrator can do. Only Synapse is known to answer as described.
func (hs *Homeserver) Moderate(user id.UserID, what Moderation) error {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	acc := hs.accounts[string(user)]
	if acc == nil {
		return fmt.Errorf("moderating %s: there is no such user", user)
	}
	acc.moderation = what
	if what == Deactivated {
		for token, s := range hs.tokens {
			if s.account == acc {
				delete(hs.tokens, token)
			}
		}
		for _, device := range acc.deviceIDs() {
			hs.dropDevice(acc, device)
		}
		for _, r := range append(hs.roomsOf(acc.id, "join"), hs.roomsOf(acc.id, "invite")...) {
			_, err := hs.emit(r, draft{typ: "m.room.member", sender: acc.id, stateKey: &acc.id, content: object{"membership": "leave"}})
			if err != nil {
				return fmt.Errorf("deactivating %s: %w", user, err)
			}
		}
	}
	return nil
}

// suspendedFrom refuses what a suspended user wants to do.
func (c *call) suspendedFrom(doing string) error {
	if c.who.account == nil || c.who.account.moderation != Suspended {
		return nil
	}
	return refuse(http.StatusForbidden, "M_USER_SUSPENDED", "%s while account is suspended is not allowed.", doing)
}

func lockedOut() *refusal {
	e := refuse(http.StatusUnauthorized, "M_USER_LOCKED", "User account has been locked")
	e.extra = map[string]any{"soft_logout": true}
	return e
}

// loginRefusal is why a user cannot log in.
func (a *account) loginRefusal() error {
	switch a.moderation {
	case Locked:
		return lockedOut()
	case Deactivated:
		return refuse(http.StatusForbidden, "M_USER_DEACTIVATED", "This account has been deactivated")
	}
	return nil
}
