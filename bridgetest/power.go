package bridgetest

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
)

// number reads a power level, which came out of JSON or was written here.
func number(v any, otherwise int) int {
	switch n := v.(type) {
	case float64:
		return int(n)
	case int:
		return n
	}
	return otherwise
}

// powerLevel is what a user may.
func (r *room) powerLevel(user string) int {
	if r.creatorsRule() && slices.Contains(r.creators(), user) {
		return creatorPower
	}
	levels := r.stateContent("m.room.power_levels", "")
	if levels == nil {
		if user == r.creator {
			return 100
		}
		return 0
	}
	users, _ := levels["users"].(map[string]any)
	if v, have := users[user]; have {
		return number(v, 0)
	}
	return number(levels["users_default"], 0)
}

// needed is the power that an action ("invite", "kick", "ban", "redact") takes.
func (r *room) needed(action string, otherwise int) int {
	return number(r.stateContent("m.room.power_levels", "")[action], otherwise)
}

// neededToSend is the power that an event of this type takes.
func (r *room) neededToSend(typ string, state bool) int {
	levels := r.stateContent("m.room.power_levels", "")
	events, _ := levels["events"].(map[string]any)
	if v, have := events[typ]; have {
		return number(v, 0)
	}
	switch {
	case levels == nil:
		return 0
	case state:
		return number(levels["state_default"], 50)
	default:
		return number(levels["events_default"], 0)
	}
}

// authorise applies the authorisation rules of room version 11 that a local server can run into.
func (r *room) authorise(d draft) error {
	if d.typ == "m.room.create" {
		return nil
	}
	if d.typ == "m.room.member" && d.stateKey != nil {
		return r.authoriseMember(d)
	}
	if !r.joined(d.sender) {
		return forbidden("User %s not in room %s (%s)", d.sender, r.id, orNone(r.membership(d.sender)))
	}
	have, need := r.powerLevel(d.sender), r.neededToSend(d.typ, d.stateKey != nil)
	if have < need {
		return forbidden("You don't have permission to post that to the room. user_level (%d) < send_level (%d)", have, need)
	}
	if d.redacted != nil && d.redacted.sender != d.sender && have < r.needed("redact", 50) {
		return forbidden("You don't have permission to redact events")
	}
	if d.stateKey != nil && strings.HasPrefix(*d.stateKey, "@") && *d.stateKey != d.sender {
		return forbidden("You are not allowed to set others state")
	}
	if d.typ == "m.room.power_levels" && d.stateKey != nil {
		return r.authoriseLevels(d, have)
	}
	return nil
}

func orNone(membership string) string {
	if membership == "" {
		return "None"
	}
	return membership
}

// checkIntegers refuses power levels of users and events that are no whole numbers.
func checkIntegers(levels map[string]any) error {
	for _, key := range []string{"users", "events"} {
		of, _ := levels[key].(map[string]any)
		for name, level := range of {
			_, whole := level.(int) // of levels that were written here
			n, ok := level.(float64)
			if !whole && (!ok || n != math.Trunc(n)) {
				return badRequest("M_BAD_JSON", "'%v' is not of type 'integer' (%s of %s)", level, key, name)
			}
		}
	}
	return nil
}

// authoriseLevels lets nobody give or take more power than they have.
func (r *room) authoriseLevels(d draft, have int) error {
	if err := checkIntegers(d.content); err != nil {
		return err
	}
	before := r.stateContent("m.room.power_levels", "")
	if before == nil {
		return nil
	}
	check := func(from, to any) error {
		if from != nil && number(from, 0) > have || to != nil && number(to, 0) > have {
			return forbidden("You don't have permission to add ops level greater than your own")
		}
		return nil
	}
	for _, key := range []string{"ban", "kick", "redact", "invite", "users_default", "events_default", "state_default"} {
		if number(before[key], -1) != number(d.content[key], -1) {
			if err := check(before[key], d.content[key]); err != nil {
				return err
			}
		}
	}
	for _, key := range []string{"users", "events"} {
		from, _ := before[key].(map[string]any)
		to, _ := d.content[key].(map[string]any)
		all := maps.Clone(from)
		if all == nil {
			all = make(map[string]any)
		}
		maps.Copy(all, to)
		for name := range all {
			if number(from[name], -1) == number(to[name], -1) {
				continue
			}
			if err := check(from[name], to[name]); err != nil {
				return err
			}
			if key == "users" && name != d.sender && from[name] != nil && number(from[name], 0) >= have {
				return forbidden("You don't have permission to remove ops level equal to your own")
			}
		}
	}
	return nil
}

// badState refuses what cannot be done with whom is banned.
func badState(what, user string) error {
	return refuse(http.StatusForbidden, "M_BAD_STATE", "Cannot %s %s who was banned", what, user)
}

func (r *room) authoriseMember(d draft) error {
	target := *d.stateKey
	membership, _ := d.content["membership"].(string)
	sender, is := r.membership(d.sender), r.membership(target)
	power := r.powerLevel(d.sender)
	switch membership {
	case "join":
		rule := r.stateString("m.room.join_rules", "", "join_rule")
		switch {
		case d.sender != target:
			return forbidden("Cannot force another user to join.")
		case is == "ban":
			return badState("join", target)
		case is == "join", is == "invite", rule == "public":
			return nil
		case len(r.members("join")) == 0 && target == r.creator && len(r.timeline) == 1:
			return nil // the creator enters the new room
		}
		return forbidden("You are not invited to this room.")
	case "invite":
		switch {
		case sender != "join":
			return forbidden("%s not in room %s.", d.sender, r.id)
		case is == "ban":
			return badState("invite", target)
		case is == "join":
			return forbidden("%s is already in the room.", target)
		case power < r.needed("invite", 0):
			return forbidden("You don't have permission to invite users")
		}
		return nil
	case "leave":
		if d.sender == target {
			if is == "join" || is == "invite" || is == "knock" {
				return nil
			}
			return forbidden("User %s not in room %s (%s)", target, r.id, orNone(is))
		}
		switch {
		case sender != "join":
			return forbidden("%s not in room %s.", d.sender, r.id)
		case is == "ban" && power < r.needed("ban", 50):
			return forbidden("You cannot unban user %s.", target)
		case power < r.needed("kick", 50) || power <= r.powerLevel(target):
			return forbidden("You cannot kick user %s.", target)
		}
		return nil
	case "ban":
		switch {
		case sender != "join":
			return forbidden("%s not in room %s.", d.sender, r.id)
		case power < r.needed("ban", 50) || power <= r.powerLevel(target):
			return forbidden("You don't have permission to ban")
		}
		return nil
	}
	return badRequest("M_BAD_JSON", "Unknown membership %s", membership)
}
