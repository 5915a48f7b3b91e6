package bridgetest

import (
	"encoding/json"

	"maunium.net/go/mautrix/id"
)

// Event is something that a user's client saw: an event of a room, a stripped state event of an invite, a typing
// notice or receipt (type m.typing, m.receipt; without ID), or a to-device message (without room).
type Event struct {
	Type      string
	ID        id.EventID
	RoomID    id.RoomID
	Sender    id.UserID
	StateKey  *string
	Content   map[string]any
	Timestamp int64 // unix milliseconds
	Redacts   id.EventID
	Raw       json.RawMessage // the event as it came
}

// IsState tells whether the event is a state event.
func (e Event) IsState() bool { return e.StateKey != nil }

// Body is the content's body; empty when there is none.
func (e Event) Body() string { return e.str("body") }

// MsgType is the content's msgtype, such as "m.text".
func (e Event) MsgType() string { return e.str("msgtype") }

// Membership is the content's membership, such as "join".
func (e Event) Membership() string { return e.str("membership") }

// Target is the user whom a membership event is about.
func (e Event) Target() id.UserID {
	if e.StateKey == nil {
		return ""
	}
	return id.UserID(*e.StateKey)
}

// MediaURI is the content's url, with which media was sent.
func (e Event) MediaURI() id.ContentURIString { return id.ContentURIString(e.str("url")) }

// ReplyTo is the event that this one replies to.
func (e Event) ReplyTo() id.EventID {
	rel, _ := e.Content["m.relates_to"].(map[string]any)
	to, _ := rel["m.in_reply_to"].(map[string]any)
	eventID, _ := to["event_id"].(string)
	return id.EventID(eventID)
}

// TypingUsers are those of an m.typing event.
func (e Event) TypingUsers() []id.UserID {
	list, _ := e.Content["user_ids"].([]any)
	users := make([]id.UserID, 0, len(list))
	for _, u := range list {
		s, _ := u.(string)
		users = append(users, id.UserID(s))
	}
	return users
}

func (e Event) str(key string) string {
	s, _ := e.Content[key].(string)
	return s
}

// Text matches a message with this body, whoever sent it.
func Text(body string) func(Event) bool {
	return func(e Event) bool { return e.Type == "m.room.message" && e.Body() == body }
}

// Message matches a message of this sender with this body.
func Message(sender id.UserID, body string) func(Event) bool {
	return func(e Event) bool { return e.Sender == sender && Text(body)(e) }
}

// Member matches the change of a user's membership to "join", "leave", "invite" or "ban".
func Member(user id.UserID, membership string) func(Event) bool {
	return func(e Event) bool {
		return e.Type == "m.room.member" && e.Target() == user && e.Membership() == membership
	}
}

// OfType matches events of a type.
func OfType(eventType string) func(Event) bool {
	return func(e Event) bool { return e.Type == eventType }
}

type wireEvent struct {
	Type      string          `json:"type"`
	ID        id.EventID      `json:"event_id"`
	RoomID    id.RoomID       `json:"room_id"`
	Sender    id.UserID       `json:"sender"`
	StateKey  *string         `json:"state_key"`
	Content   json.RawMessage `json:"content"`
	Timestamp int64           `json:"origin_server_ts"`
	Redacts   id.EventID      `json:"redacts"`
}

func parseEvent(raw json.RawMessage, room id.RoomID) (Event, error) {
	var w wireEvent
	if err := json.Unmarshal(raw, &w); err != nil {
		return Event{}, err
	}
	ev := Event{Type: w.Type, ID: w.ID, RoomID: w.RoomID, Sender: w.Sender, StateKey: w.StateKey, Timestamp: w.Timestamp, Redacts: w.Redacts, Raw: raw}
	if ev.RoomID == "" {
		ev.RoomID = room
	}
	if len(w.Content) > 0 {
		if err := json.Unmarshal(w.Content, &ev.Content); err != nil {
			return Event{}, err
		}
	}
	return ev, nil
}
