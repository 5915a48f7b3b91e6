package appservice

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Effect is something that a handler wants written to the store. Effects are committed together with the progress of
// the event that they belong to, so either both hold or neither. An effect must not use the network, and may run more
// than once (a commit that fails is tried again), each time in a transaction where the earlier run never happened.
type Effect = func(tx *store.Tx) error

// Handler is what a bridge does with what the homeserver sends. It may also be a [BuriedHandler], a [RedactionHandler], a [LapseHandler],
// a [UserQuerier], an [AliasQuerier] and a [ThirdPartyHandler].
type Handler interface {
	// HandleEvent is given every event once its transaction is safe in the store: in order within a lane, lanes in
	// parallel, events of the bridge's own ghosts and bot as well.
	//
	// A nil error ends the event: its effects and its progress are committed together, perhaps with those of the next
	// events of the lane. A handler that is about to do what cannot be taken back (a message to the network) or that may
	// take long calls [Event.Doubt] first.
	//
	// A plain error is transient: the effects are dropped and the event is tried again after 1 s, then 2, 4 and so on up
	// to every 5 minutes, until Config.MaxAge has been waited. An error wrapped by [Permanent] makes the event a dead
	// letter at once, a panic after five attempts; one wrapped by [Later] is no attempt at all. The lane waits for its
	// head; no other lane does.
	//
	// A plain error after Doubt, and one of Later, says that nothing has left: the mark is taken back. A handler that does
	// not know whether something has left, and must not do it again, returns a Permanent error. After a panic, and after
	// the end of the process, the event comes again with InDoubt set; when five processes in a row end so, it becomes a
	// dead letter. So does one that ends the process without a call of Doubt, once it is found out: see [AppService.Careful].
	//
	// ctx ends when the appservice stops. An error after that is no attempt: the event is found again at the next start,
	// not in doubt when the error is a plain one.
	HandleEvent(ctx context.Context, ev *Event) ([]Effect, error)
	// HandleEphemeral is given typing, receipts and presence, coalesced, one at a time. They are never stored, and are
	// dropped, oldest first, when the handler does not keep up.
	HandleEphemeral(ctx context.Context, ev *Ephemeral)
}

// BuriedHandler is an optional interface of a [Handler]: it is told when an event becomes a dead letter, so that whoever
// wrote the message can be told as well.
type BuriedHandler interface {
	// Buried returns effects that are committed with the dead letter. ev may be impossible to decode.
	Buried(ctx context.Context, ev *Event, cause error) []Effect
}

// RedactionHandler is an optional interface of a [Handler]: it is told of redactions as they come, before their turn in their lane, which may have to wait for hours
// until the network is back.
type RedactionHandler interface {
	// Redacted returns effects that are committed with the transaction that brought the redaction. It must be quick, and may be called again for the same redaction,
	// which HandleEvent is given as well, in its turn.
	Redacted(ev *Event) []Effect
}

// LapseHandler is an optional interface of a [Handler]: it is told when the homeserver may have ended without having sent everything that had happened. Nothing else
// finds that out.
type LapseHandler interface {
	// Lapse is called when the homeserver may never send what happened since then: [Intent.CatchUp] reads it from the rooms in which it matters. It is called
	// once at a time, on a goroutine of its own, 10 s after it was noticed or later: when the homeserver reaches the bridge (see [AppService.Ping]) and has sent
	// what it has. When this process ends first the next one does it again. It is not called where the homeserver has no ping. ctx ends when the appservice stops.
	Lapse(ctx context.Context, since time.Time)
}

// UserQuerier is an optional interface of a [Handler]: the homeserver asks whether a user in the bridge's namespace
// exists, before it delivers an invitation to them. Without it nobody exists before its ghost was registered; ghosts that
// were, and the bot, are answered for in either case.
//
// ctx ends after Config.QueryTimeout, when the homeserver does not wait any more, and when the appservice stops. An error,
// a panic and an answer that is late say that it could not be found out, which is not that there is no such user.
type UserQuerier interface {
	// QueryUser says whether the user exists on the network. When it does, the ghost is registered afterwards, unless
	// QueryUser did that by itself; so it may give the ghost its name first.
	QueryUser(ctx context.Context, user id.UserID) (bool, error)
}

// AliasQuerier is an optional interface of a [Handler]: the homeserver asks whether a room alias in the bridge's
// namespace exists, when somebody wants to join it. For ctx and errors see [UserQuerier].
type AliasQuerier interface {
	// QueryAlias makes the room with this alias and returns true, or returns false.
	QueryAlias(ctx context.Context, alias id.RoomAlias) (bool, error)
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error as one that no repetition mends. It returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// IsPermanent says whether an error, or one that it wraps, was marked by [Permanent].
func IsPermanent(err error) bool {
	var p permanentError
	return errors.As(err, &p)
}
