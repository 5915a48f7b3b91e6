package store

import "time"

// Kind says what an [Element] of a transaction is.
type Kind uint8

// The kinds of elements that an acknowledged transaction must never lose.
const (
	KindPDU         Kind = 1 // a room event
	KindToDevice    Kind = 2 // a to-device message
	KindDeviceLists Kind = 3 // changed and left users
	KindKeyCounts   Kind = 4 // one-time and fallback key counts
)

// Element is one thing that came in a transaction.
type Element struct {
	Kind Kind
	// Lane is the queue it belongs to: elements of one lane are worked on in order.
	Lane string
	// Key is the de-duplication key, unique within its Kind: the event ID of a PDU; the empty key is never a duplicate.
	Key string
	// Again has it taken in although its key may be known: it was here before, and comes out of the dead letters.
	Again bool
	// Inert has nothing done with it but that its key is known from then on: it is of no use any more, and may still come.
	Inert bool
	// InertAfter makes it inert when one of these keys of its kind is known already: it would come after what has overtaken it.
	InertAfter []string
	// State says of a PDU that it has a state key.
	State bool
	// AtOnce is written in the commit that takes the element in, unless it was taken in before. It may run more than once, as the job does.
	AtOnce func(tx *Tx) error
	// Raw is the element as it came. What the store returns must not be changed: it is shared.
	Raw []byte
}

// Transaction is what [Tx.Ingest] takes in.
type Transaction struct {
	ID             string
	Received       time.Time
	Elements       []Element
	EncryptedRooms []string     // rooms whose encryption event is among the elements
	ChangedUsers   []string     // users whose devices have changed, as the device lists among the elements say
	Dead           []DeadLetter // parts that no handler can be given; buried in the same commit, once
}

// Ref names an element in the inbox.
type Ref struct {
	Seq  int64  // the inbox row: rows are numbered in the order of their commits
	Pos  uint32 // the element's position within the row
	Last bool   // it is the last of its lane in that row
}

// LaneRefs are the elements of one inbox row that belong to one lane, in order.
type LaneRefs struct {
	Lane string
	Refs []Ref
	// Doubt, Attempts, Cause and NextAt speak of the first of Refs, and are zero for what has just come in: it was under
	// way when the process ended; it failed so many times; why it was not done the last time; it must not be tried again
	// before NextAt.
	Doubt    bool
	Attempts int
	Cause    string
	NextAt   time.Time
}

// Stats is how full the inbox is.
type Stats struct {
	Rows   int64     // transactions with unfinished lanes
	Events int64     // elements of these rows, finished ones included
	Oldest time.Time // when the oldest of them came in; zero when there is none
}
