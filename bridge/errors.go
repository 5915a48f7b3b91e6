package bridge

import "errors"

// ErrNoPortal is what [Sink.Deliver] returns for a channel that no room is plumbed to.
var ErrNoPortal = errors.New("no room is plumbed to this channel")

// ErrOffline is what [Session.Send], and the Session's other ways to send, return (wrapped or not) when the session is not
// connected, or not in the channel: nothing left, the attempt does not count, and it is made again after [Sink.Online].
var ErrOffline = errors.New("not connected to the network")

type markedError struct {
	error
	mark error
}

func (e *markedError) Unwrap() []error { return []error{e.error, e.mark} }

// InDoubt tells the appservice what a dead letter has to say of itself.
func (e *markedError) InDoubt() bool { return IsInDoubt(e) }

var (
	errPermanent = errors.New("permanent")
	errInDoubt   = errors.New("in doubt")
)

// Permanent marks an error of [Session.Send] as one that no further attempt can mend: the message becomes a dead letter,
// and its sender is told.
func Permanent(err error) error { return &markedError{err, errPermanent} }

// InDoubt marks an error of [Session.Send] after which nobody knows whether the message arrived. What happens then is the
// Session's [Guarantee].
func InDoubt(err error) error { return &markedError{err, errInDoubt} }

// IsPermanent reports whether err was marked by [Permanent].
func IsPermanent(err error) bool { return errors.Is(err, errPermanent) }

// IsInDoubt reports whether err was marked by [InDoubt].
func IsInDoubt(err error) bool { return errors.Is(err, errInDoubt) }
