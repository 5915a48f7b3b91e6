package bridgetest

import (
	"net/http"
	"strings"
)

type memberRequest struct {
	User   string `json:"user_id"`
	Reason string `json:"reason"`
}

// postJoin joins by ID or alias. An alias that nobody knows may be one that an appservice makes on request.
func (hs *Homeserver) postJoin(c *call) (any, error) {
	var req memberRequest
	if err := c.maybeJSON(&req); err != nil {
		return nil, err
	}
	id := c.vars["room"]
	if strings.HasPrefix(id, "#") {
		found, err := hs.resolveAlias(c.Context(), id)
		if err != nil {
			return nil, err
		}
		id = found
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if !strings.HasPrefix(id, "!") {
		return nil, badRequest("M_UNKNOWN", "%s was not legal room ID or room alias", id)
	}
	r := hs.rooms[id]
	if r == nil {
		return nil, refuse(http.StatusNotFound, "M_UNKNOWN", "Can't join remote room because no servers that are in the room have been provided.")
	}
	if err := c.suspendedFrom("Joining rooms"); err != nil {
		return nil, err
	}
	if !r.joined(c.user()) {
		if err := hs.limitJoins(c, r); err != nil {
			return nil, err
		}
	}
	if err := hs.setMembership(c, r, c.user(), "join", req.Reason); err != nil {
		return nil, err
	}
	return map[string]any{"room_id": r.id}, nil
}

// setMembership sends a membership event.
func (hs *Homeserver) setMembership(c *call, r *room, user, membership, reason string) error {
	content := hs.memberContent(user, membership)
	if reason != "" {
		content["reason"] = reason
	}
	_, err := hs.emit(r, draft{typ: "m.room.member", sender: c.user(), stateKey: &user, content: content, timestamp: massaged(c)})
	return err
}

func (hs *Homeserver) postLeave(c *call) (any, error) {
	var req memberRequest
	if err := c.maybeJSON(&req); err != nil {
		return nil, err
	}
	r := hs.rooms[c.vars["room"]]
	if r == nil {
		return nil, refuse(http.StatusNotFound, "M_UNKNOWN", "Not a known room")
	}
	if r.membership(c.user()) == "leave" {
		return struct{}{}, nil // leaving twice is no error
	}
	return struct{}{}, hs.setMembership(c, r, c.user(), "leave", req.Reason)
}

func (hs *Homeserver) postForget(c *call) (any, error) {
	r, err := hs.roomOf(c)
	if err != nil {
		return nil, err
	}
	if r.joined(c.user()) {
		return nil, badRequest("M_UNKNOWN", "User %s in room %s", c.user(), r.id)
	}
	return struct{}{}, nil
}

func (hs *Homeserver) postInvite(c *call) (any, error) { return hs.moderate(c, "invite") }
func (hs *Homeserver) postBan(c *call) (any, error)    { return hs.moderate(c, "ban") }

func (hs *Homeserver) postKick(c *call) (any, error) {
	return hs.moderate(c, "leave", "join", "invite", "knock")
}

func (hs *Homeserver) postUnban(c *call) (any, error) { return hs.moderate(c, "leave", "ban") }

// moderate changes another user's membership, from one of the given ones (none: any).
func (hs *Homeserver) moderate(c *call, to string, from ...string) (any, error) {
	var req memberRequest
	if err := c.json(&req); err != nil {
		return nil, err
	}
	if req.User == "" {
		return nil, badRequest("M_MISSING_PARAM", "Missing params: user_id")
	}
	if !strings.HasPrefix(req.User, "@") || !strings.Contains(req.User, ":") {
		return nil, badRequest("M_INVALID_PARAM", "Expected UserID string to start with '@'")
	}
	r, err := hs.knownRoom(c)
	if err != nil {
		return nil, err
	}
	if to == "invite" {
		if err := c.suspendedFrom("Inviting users"); err != nil {
			return nil, err
		}
	}
	if len(from) > 0 {
		is, fits := r.membership(req.User), false
		for _, f := range from {
			fits = fits || f == is
		}
		switch {
		case !fits && from[0] == "ban":
			return nil, refuse(http.StatusForbidden, "M_BAD_STATE", "Cannot unban user who was not banned (membership=%s)", is)
		case !fits:
			return nil, forbidden("The target user is not in the room")
		}
	}
	return struct{}{}, hs.setMembership(c, r, req.User, to, req.Reason)
}
