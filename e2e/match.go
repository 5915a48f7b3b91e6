package e2e

import (
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// In matches the message events of a room with that type and exactly that body, whoever sent them.
func In(room id.RoomID, msgtype, body string) func(ev *event.Event) bool {
	return func(ev *event.Event) bool {
		return ev.RoomID == room && ev.Type.Type == event.EventMessage.Type &&
			ev.Content.Raw["msgtype"] == msgtype && ev.Content.Raw["body"] == body
	}
}

// From narrows match to one sender.
func From(user id.UserID, match func(ev *event.Event) bool) func(ev *event.Event) bool {
	return func(ev *event.Event) bool { return ev.Sender == user && match(ev) }
}

// Membership matches a change of a user's membership of a room.
func Membership(room id.RoomID, user id.UserID, membership string) func(ev *event.Event) bool {
	return func(ev *event.Event) bool {
		return ev.RoomID == room && ev.Type.Type == event.StateMember.Type && ev.StateKey != nil &&
			*ev.StateKey == user.String() && ev.Content.Raw["membership"] == membership
	}
}

// TopicSet matches a change of a room's topic to the text.
func TopicSet(room id.RoomID, text string) func(ev *event.Event) bool {
	return func(ev *event.Event) bool {
		return ev.RoomID == room && ev.Type.Type == event.StateTopic.Type && ev.Content.Raw["topic"] == text
	}
}
