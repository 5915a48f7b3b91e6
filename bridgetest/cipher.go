package bridgetest

import (
	"context"

	"maunium.net/go/mautrix/id"
)

// Cipher encrypts what a [User] says and decrypts what it reads: a User has no keys of its own, and its messages in encrypted rooms are plain
// without one.
type Cipher interface {
	// Seal gives the type and the content to send in the place of an event's; the same when it is to stay as it is.
	Seal(ctx context.Context, room id.RoomID, eventType string, content any) (sealedType string, sealed any, err error)
	// Open gives an event as it was before it was encrypted; the same when it was not, or cannot be read yet.
	Open(ev Event) Event
}

// SetCipher is to be called before the user says or reads anything.
func (u *User) SetCipher(c Cipher) { u.cipher = c }

func (u *User) open(ev Event) Event {
	if u.cipher == nil || ev.Type != "m.room.encrypted" {
		return ev
	}
	return u.cipher.Open(ev)
}
