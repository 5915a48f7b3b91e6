package bridgetest

import (
	"math"
	"slices"
	"strings"
)

const defaultVersion = "11"

// roomVersions are those that rooms can be created with.
var roomVersions = map[string]string{"11": "stable", "12": "stable"}

// newRoomID has the shape of its version: since 12 it is the hash of the event that creates the room, without a server.
func (hs *Homeserver) newRoomID(version string) string {
	if version == "12" {
		return "!" + strings.TrimPrefix(newEventID(), "$")
	}
	return "!" + randomLetters(18, letters) + ":" + hs.opts.ServerName
}

// creatorsRule tells whether the creators have power without end, and are not in the power levels (room version 12).
func (r *room) creatorsRule() bool { return r.version == "12" }

// creators are the user who made the room and those whom that user made its equals.
func (r *room) creators() []string {
	out := []string{r.creator}
	more, _ := r.stateContent("m.room.create", "")["additional_creators"].([]any)
	for _, user := range more {
		if s, ok := user.(string); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// creatorPower is above every level that can be written.
const creatorPower = math.MaxInt32

// checkLevels refuses power levels that name a creator.
func (r *room) checkLevels(d draft) error {
	if d.typ != "m.room.power_levels" || d.stateKey == nil || !r.creatorsRule() {
		return nil
	}
	users, _ := d.content["users"].(map[string]any)
	for _, user := range r.creators() {
		if _, named := users[user]; named {
			return badRequest("M_UNKNOWN", "Creator user %s must not appear in content.users", user)
		}
	}
	return nil
}

// nextEventID is made up, but for the event whose ID the room's is.
func (r *room) nextEventID(d draft) string {
	if d.typ == "m.room.create" && r.creatorsRule() && len(r.timeline) == 0 {
		return "$" + strings.TrimPrefix(r.id, "!")
	}
	return newEventID()
}
