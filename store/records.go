package store

import "time"

// DeadLetter is something that was acknowledged and could not be handled. It is kept with its cause until it is replayed,
// dropped by hand, or its retention ends.
type DeadLetter struct {
	ID       int64  // given by Bury, never used twice
	Kind     string // "pdu", "to_device", "body", "element", "outbox"
	Lane     string
	Key      string // the event ID of a pdu, the transaction ID of the others, or empty
	Op       string // of "outbox": [Outgoing.Op]
	Cause    string
	Attempts int // zero: it never was in a lane, because it could not be read
	// Doubt says that it may have been done all the same: nobody knows what became of the last attempt.
	Doubt bool
	// From is where it was before: the number of the inbox row, or of "outbox" the outbox row. Zero: nowhere.
	From    int64
	Size    int // bytes of Body, also where Body was not read; Bury ignores it
	Body    []byte
	Created time.Time // zero: now
}

// LetterQuery says which dead letters are listed. The zero value is the 100 oldest.
type LetterQuery struct {
	Kind   string   // of this kind only
	Lanes  []string // of one of these lanes only; nil: of any
	Newest bool     // the newest first
	After  int64    // what comes after this ID in the order of the list; zero: from the start
	Limit  int      // at most so many; zero: 100
	Bodies bool     // read Body as well; it may have many megabytes
}

// What can be asked about a dead letter, by the process that holds the store or by another one ([Visitor.Request]).
const (
	ActionReplay = "replay" // it is taken up again, as new
	ActionDrop   = "drop"   // it is forgotten
)

// What becomes of a request.
const (
	ResultReplayed = "replayed" // it waits in its lane, or did: see LetterRequest.Went
	ResultDropped  = "dropped"
	ResultMissing  = "missing" // there was no such dead letter any more
	ResultRefused  = "refused" // it cannot be taken up, and stays, with LetterRequest.Cause
)

// LetterRequest is what an operator wants done with a dead letter, and what came of it. There is one for a letter at most:
// the newest.
type LetterRequest struct {
	Letter   int64
	Action   string
	Asked    time.Time
	Answered time.Time // zero: not yet, and Result is empty
	Result   string
	Cause    string // of ResultRefused; of ResultReplayed which parts of it became dead letters of their own, or empty
	// Went is, of ResultReplayed, where it went: the inbox row, or the outbox row of a letter of kind "outbox". Zero: all
	// that is in it had come in by another way.
	Went int64
}

// Outgoing is an outbox row: something that is to be done on the homeserver.
type Outgoing struct {
	ID int64 // given by Enqueue, never used twice
	// Lane is the queue it belongs to: rows of one lane are worked on in order of ID.
	Lane string
	// Key is the remote identity of what is done; the same key is enqueued once within Retention.Remote. The empty key is
	// never a duplicate.
	Key     string
	Op      string
	TxnID   string
	Payload []byte
	// Sealed is the ciphertext of Payload, once there is one: what is sent then, as often as it takes. Given by [Tx.OutgoingSealed], ignored by Enqueue.
	Sealed   []byte
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
	Source  string // "config", "command" or "alias"
	Topic   string
	Name    string
	Created time.Time // zero: now
}

// MediaKey signs media links. At most one key is not retired; the retired ones still verify what they signed, until they are dead.
type MediaKey struct {
	ID      uint8 // 1 to 255, given by AddMediaKey
	Secret  []byte
	Created time.Time // zero: now
	Retired time.Time // zero: this is the key that signs
	Dead    time.Time // zero: it verifies
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
	Sender  string // of the event; empty: not known
	// Kind is what the link leads to: a file, when it is empty, or a page of that kind, which has no Server and MediaID, and shows a [MediaPage].
	Kind string
	// Edit is the event whose content the link leads to, when that edited Event: the link ends with either. Empty: Event itself.
	Edit string
}
