package store

import "time"

// DeadLetter is something that was acknowledged and could not be handled. It is kept with its cause until it is dropped
// by hand or its retention ends.
type DeadLetter struct {
	ID       int64  // given by Bury
	Kind     string // "pdu", "to_device", "body", "element", "outbox"
	Lane     string
	Key      string
	Cause    string
	Attempts int
	Body     []byte
	Created  time.Time // zero: now
}

// Outgoing is an outbox row: something that is to be done on the homeserver.
type Outgoing struct {
	ID int64 // given by Enqueue, never used twice
	// Lane is the queue it belongs to: rows of one lane are worked on in order of ID.
	Lane string
	// Key is the remote identity of what is done; the same key is enqueued once within Retention.Remote. The empty key is
	// never a duplicate.
	Key      string
	Op       string
	TxnID    string
	Payload  []byte
	Doubt    bool
	Attempts int
	Cause    string
	NextAt   time.Time
	Created  time.Time // zero: now
}

// Message links one part of a message on the remote network with its Matrix event.
type Message struct {
	Channel    string
	RemoteID   string
	Part       int
	Event      string
	Room       string
	Sender     string
	FromMatrix bool
	At         time.Time // zero: now
}

// Ghost is what is known about a ghost (or the bot) on the homeserver.
type Ghost struct {
	UserID      string
	Registered  bool
	DeviceID    string
	DeviceMade  bool
	DisplayName string
	AvatarURL   string
	LastWrite   time.Time
}

// Portal is a room that carries a channel. A channel has one room and a room has one channel; Room is empty while the
// room is still to be made.
type Portal struct {
	Channel string
	Room    string
	Source  string // "config" or "command"
	Topic   string
	Name    string
	Created time.Time // zero: now
}

// MediaKey signs media links. At most one key is not retired; the retired ones still verify what they signed.
type MediaKey struct {
	ID      uint8 // 1 to 255, given by AddMediaKey
	Secret  []byte
	Created time.Time // zero: now
	Retired time.Time // zero: this is the key that signs
}

// Media is what a short media link stands for.
type Media struct {
	ID      int64 // given by AddMedia, never used twice
	Server  string
	MediaID string
	Room    string
	Event   string
	Name    string
	MIME    string
	Size    int64
	Created time.Time // zero: now
	Expires time.Time // zero: never
	Revoked time.Time // zero: it was not revoked
	Info    []byte
}
