package appservice

import (
	"github.com/go-json-experiment/json"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// roomChange keeps what the store knows of rooms true: who is in, and who may do what. It is written when the event is taken in, since who has left must read
// nothing that is encrypted from then on, and the event's turn in its lane may be hours away. That a room is encrypted is written there as well. Of our own
// users it says nothing, see [AppService.ownChange].
func (as *AppService) roomChange(ev *Event) Effect {
	if ev.Kind != store.KindPDU || ev.StateKey == nil || len(*ev.StateKey) > maxID {
		return nil
	}
	room, user := string(ev.RoomID), *ev.StateKey
	if ev.Type == event.StateMember.Type {
		membership := membershipIn(ev)
		if membership == "" || as.isOwn(id.UserID(user)) {
			return nil
		}
		return func(tx *store.Tx) error {
			if err := tx.DropRoomKeysUnless(room, user, membership); err != nil {
				return err
			}
			return tx.SetRoomMember(room, user, membership)
		}
	}
	var state stateEvent
	if user != "" || json.Unmarshal(ev.Raw, &state, lenient) != nil {
		return nil
	}
	keep := keptState(&state, ev.Raw)
	if keep == nil {
		return nil
	}
	typ, keep := ev.Type, append([]byte(nil), keep...)
	return func(tx *store.Tx) error {
		if typ == event.StateHistoryVisibility.Type || typ == event.StateEncryption.Type {
			if err := tx.DropRoomKeys(room); err != nil { // what is sent from now on may be for others (MSC3061)
				return err
			}
		}
		return tx.SetRoomState(room, typ, keep)
	}
}

// ownChange keeps where our own users are, in rooms that are not known as well: a kick, a ban or an invitation by somebody else comes as an event, and an intent
// that thinks its ghost is in the room would fail for ever. It is written in the event's turn: whoever was in the room by then reads what came before. What our
// own users do, their intents wrote down when it was done; its echo may be older than what was done since.
func (as *AppService) ownChange(ev *Event) Effect {
	if ev.Kind != store.KindPDU || ev.Type != event.StateMember.Type || ev.StateKey == nil || len(*ev.StateKey) > maxID ||
		!as.isOwn(id.UserID(*ev.StateKey)) || as.isOwn(ev.Sender) {
		return nil
	}
	membership := membershipIn(ev)
	if membership == "" {
		return nil
	}
	room, user := string(ev.RoomID), *ev.StateKey
	// A ghost follows an invitation before its event is handled. The bot follows the event, also into a room that it has left without the bridge.
	if user != string(as.botID) && (membership == "invite" || membership == "knock") {
		return func(tx *store.Tx) error { return tx.SetOutside(room, user, membership) }
	}
	return func(tx *store.Tx) error { return as.setMember(tx, room, user, membership) }
}

func membershipIn(ev *Event) string {
	var state stateEvent
	if json.Unmarshal(ev.Raw, &state, lenient) != nil {
		return ""
	}
	return membershipOf(state.Content)
}

// setMember writes down where one of our own users is. A room of which no events come any more is not known any more.
func (as *AppService) setMember(tx *store.Tx, room, user, membership string) error {
	if err := tx.SetMember(room, user, membership); err != nil {
		return err
	}
	switch membership {
	case "leave", "ban":
		return tx.LeaveRoom(room, string(as.botID))
	}
	return nil
}

// membershipOf reads the content of a member event; it is "" for what is none of the memberships.
func membershipOf(content []byte) string {
	var member struct {
		Membership string `json:"membership"`
	}
	if json.Unmarshal(content, &member, lenient) != nil {
		return ""
	}
	switch member.Membership {
	case "join", "leave", "invite", "ban", "knock":
		return member.Membership
	}
	return ""
}
