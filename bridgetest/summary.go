package bridgetest

import (
	"cmp"
	"net/http"
	"strings"
)

// getRoomSummary tells those who may enter a room, or are in it, what it is (MSC3266).
func (hs *Homeserver) getRoomSummary(c *call) (any, error) {
	roomID := c.vars["room"]
	if strings.HasPrefix(roomID, "#") {
		found, err := hs.resolveAlias(c.Context(), roomID)
		if err != nil {
			return nil, err
		}
		roomID = found
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	r := hs.rooms[roomID]
	if r == nil {
		return nil, badRequest("M_UNKNOWN", "Missing via to query remote room")
	}
	rule := r.stateString("m.room.join_rules", "", "join_rule")
	world := r.stateString("m.room.history_visibility", "", "history_visibility") == "world_readable"
	membership := ""
	if c.who.account != nil {
		membership = r.membership(c.user())
	}
	if rule != "public" && !world && membership != "join" && membership != "invite" {
		return nil, refuse(http.StatusNotFound, "M_NOT_FOUND", "Unable to find or access room %s", roomID)
	}
	out := map[string]any{
		"room_id": r.id, "room_version": r.version, "num_joined_members": len(r.members("join")), "join_rule": rule,
		"world_readable": world, "guest_can_join": r.stateString("m.room.guest_access", "", "guest_access") == "can_join",
	}
	for key, state := range map[string][2]string{
		"name": {"m.room.name", "name"}, "topic": {"m.room.topic", "topic"}, "avatar_url": {"m.room.avatar", "url"},
		"canonical_alias": {"m.room.canonical_alias", "alias"}, "encryption": {"m.room.encryption", "algorithm"},
	} {
		if value := r.stateString(state[0], "", state[1]); value != "" {
			out[key] = value
		}
	}
	if c.who.account != nil {
		out["membership"] = cmp.Or(membership, "leave")
	}
	return out, nil
}
