package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Event is one element of a transaction: a room event (store.KindPDU), a to-device message (store.KindToDevice), or the
// device lists or key counts of a transaction, of which only Raw is set.
type Event struct {
	// Lane is "room:" and the room ID, "device:" with user and device, or "keys".
	Lane string
	Kind store.Kind
	// ID, RoomID and StateKey are set for room events only; StateKey is nil for events that are not state.
	ID       id.EventID
	RoomID   id.RoomID
	Type     string
	Sender   id.UserID
	StateKey *string
	// ToUserID and ToDeviceID are set for to-device messages only.
	ToUserID   id.UserID
	ToDeviceID id.DeviceID
	// Raw is the element as the homeserver sent it. It must not be changed.
	//
	// For store.KindDeviceLists it is {"changed":[…],"left":[…]}; for store.KindKeyCounts it is an object with
	// "device_one_time_keys_count" and "device_unused_fallback_key_types", each of user, device and algorithm, whatever
	// spelling the homeserver used; either may be missing.
	Raw json.RawMessage
	// Attempts is how many attempts have failed before this one.
	Attempts int
	// InDoubt says that in an earlier attempt the process ended, or the handler panicked, after [Event.Doubt] and before
	// the end of this event was written: what the handler was about to do may have been done. It stays so until an attempt
	// calls Doubt again.
	InDoubt bool

	decoded   *event.Event
	decodeErr error
	turn      *batch // while HandleEvent runs
	ref       store.Ref
	doubted   bool // in this attempt
}

// Ephemeral is one change of typing, some receipts, or a presence. Users of the bridge itself never appear in it.
type Ephemeral struct {
	// Type is "m.typing", "m.receipt" or "m.presence".
	Type     string
	RoomID   id.RoomID // empty for presence
	Typing   *TypingChange
	Receipts []Receipt
	Presence *Presence
}

// TypingChange says who began and who stopped typing since the last change of the same room.
type TypingChange struct {
	Started, Stopped []id.UserID
}

// Receipt says how far a user has read. Private receipts are never handed over.
type Receipt struct {
	UserID   id.UserID
	EventID  id.EventID
	ThreadID string // "" (unthreaded), "main", or the ID of the thread's root
	At       time.Time
}

// Presence is the newest presence of a user.
type Presence struct {
	UserID          id.UserID
	Presence        event.Presence
	StatusMessage   string
	LastActiveAgo   time.Duration
	CurrentlyActive bool
}

// Doubt says that the handler is about to do what cannot be taken back. It commits the effects and the progress of the
// events before this one, and a mark: when the process ends before this event's own progress is committed, the event
// comes again with InDoubt set. A handler that gets an error must not go on, and returns it. Doubt may only be called
// while HandleEvent runs.
func (e *Event) Doubt(context.Context) error {
	if e.turn == nil {
		return errors.New("Doubt was called after HandleEvent returned")
	}
	return e.turn.doubt(e)
}
