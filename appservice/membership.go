package appservice

import (
	"github.com/go-json-experiment/json"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// ownMembership gives the effect that keeps what the store knows of where our own users are true: a kick, a ban or an
// invitation by somebody else comes as an event, and an intent that thinks its ghost is in the room would fail for ever.
// What our own users do, their intents wrote down when it was done; its echo may be older than what was done since.
func (as *AppService) ownMembership(ev *Event) Effect {
	if ev.Kind != store.KindPDU || ev.Type != "m.room.member" || ev.StateKey == nil || len(*ev.StateKey) > maxID {
		return nil
	}
	if !as.isOwn(id.UserID(*ev.StateKey)) || as.isOwn(ev.Sender) {
		return nil
	}
	var member struct {
		Content struct {
			Membership string `json:"membership"`
		} `json:"content"`
	}
	if json.Unmarshal(ev.Raw, &member, lenient) != nil {
		return nil
	}
	membership := member.Content.Membership
	switch membership {
	case "join", "leave", "invite", "ban", "knock":
	default:
		return nil
	}
	room, user := string(ev.RoomID), *ev.StateKey
	return func(tx *store.Tx) error { return tx.SetMember(room, user, membership) }
}
