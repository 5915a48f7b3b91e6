package soak

import (
	"context"
	"net"

	"maunium.net/go/mautrix/id"
)

// Homeserver is one that the bridge is registered on, and that is killed now and then.
type Homeserver interface {
	URL() string // for the bridge
	Domain() string
	// Register gives it the bridge's registration, a file, before anything is asked of it.
	Register(registration string) error
	Person(name string) (Person, error)
	// Restart ends it as kill -9 does and starts it again, on what it has stored. What meanwhile does happens in between.
	Restart(meanwhile func())
	// Waiting tells what it has not brought to the bridge; empty when there is nothing, or when it cannot be asked.
	Waiting() string
	Devices(ctx context.Context, user id.UserID) (int, error) // of a user of the bridge
}

// Person is a user of the homeserver.
type Person interface {
	CreateRoom(ctx context.Context, invite id.UserID) (id.RoomID, error) // that everybody may join
	Join(ctx context.Context, room id.RoomID) error
	Leave(ctx context.Context, room id.RoomID) error
	Send(ctx context.Context, room id.RoomID, kind string, content any) (id.EventID, error)
	SendText(ctx context.Context, room id.RoomID, text string) (id.EventID, error)
	SendReply(ctx context.Context, room id.RoomID, to id.EventID, text string) (id.EventID, error)
	SendEdit(ctx context.Context, room id.RoomID, edited id.EventID, text string) (id.EventID, error)
	SendImage(ctx context.Context, room id.RoomID, name, mime string, data []byte) (id.EventID, error)
	Redact(ctx context.Context, room id.RoomID, event id.EventID) (id.EventID, error)
	// Sees returns once a message with this text is in the room.
	Sees(ctx context.Context, room id.RoomID, text string) error
	// Timeline is all that is to be seen in the room, the oldest first.
	Timeline(ctx context.Context, room id.RoomID) ([]Event, error)
	Members(ctx context.Context, room id.RoomID) (map[id.UserID]string, error) // and their membership
}

// Reader is a [Person] who decrypts.
type Reader interface {
	// Wrong tells what could not be read in rooms, was not to be trusted, or came in the clear.
	Wrong(rooms []id.RoomID) []string
}

// Event is one of a room's timeline.
type Event struct {
	ID      id.EventID
	Type    string
	Sender  id.UserID
	Content map[string]any
}

// Body is the content's body; empty when there is none.
func (e Event) Body() string {
	body, _ := e.Content["body"].(string)
	return body
}

// ReplyTo is the event that this one answers.
func (e Event) ReplyTo() id.EventID {
	relation, _ := e.Content["m.relates_to"].(map[string]any)
	to, _ := relation["m.in_reply_to"].(map[string]any)
	event, _ := to["event_id"].(string)
	return id.EventID(event)
}

// IRC is a server with people on it. What it is asked to do is done when the call returns.
type IRC interface {
	// Serve takes over a connection of the bridge, and closes it when the server has done with it.
	Serve(conn net.Conn)
	// Enter has somebody come and enter channels.
	Enter(ctx context.Context, nick string, channels []string) error
	Say(nick, channel, text string) error
	Quit(nick string) error
	Members(ctx context.Context, channel string) ([]string, error)
}
