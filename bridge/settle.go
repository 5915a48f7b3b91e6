package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
)

// DoubtSettler is a Session that can find out what became of a message that may have been sent, because the network can be asked
// for what was said. Without it the [Guarantee] decides.
type DoubtSettler interface {
	// Settle looks for a message. there: the network has it, whole, as Sent says. Not there: it has none of it, or a part; Send is
	// called next, and sends what is missing. known says of a remote ID whether it belongs to a message that is accounted for: two
	// may have the same text. An error that wraps [ErrOffline] says that it cannot be asked at the moment; one marked by [InDoubt],
	// that it cannot be found out.
	Settle(ctx context.Context, msg *Message, known func(remoteID string) (bool, error)) (sent Sent, there bool, err error)
}

// settle finds out about a message in doubt. done is false when it is to be sent.
func (b *Bridge) settle(ctx context.Context, ev *appservice.Event, msg *Message, doubt error) (effects []appservice.Effect, done bool, err error) {
	for _, session := range b.speakers(ev.Sender) {
		if effects, done, err = b.settleBy(ctx, session, ev, msg, doubt); done {
			break
		}
	}
	return effects, done, err
}

// loginPatience is how long after the start a message in doubt waits for its sender's own login to come.
const loginPatience = 2 * time.Minute

func (b *Bridge) settleBy(ctx context.Context, session Session, ev *appservice.Event, msg *Message, doubt error) (effects []appservice.Effect, done bool, err error) {
	settler, ok := session.(DoubtSettler)
	if !ok {
		return b.undecided(doubt)
	}
	sent, there, err := settler.Settle(ctx, msg, func(remoteID string) (bool, error) {
		found, err := b.store.MessagesByRemote(ctx, msg.Channel, remoteID)
		if err != nil {
			return false, fmt.Errorf("looking up a message of the network's history: %w", err)
		}
		return len(found) > 0, nil
	})
	switch {
	case err == nil && there:
		b.log.Info().Stringer("event_id", ev.ID).Msg("A message in doubt has reached the network")
		return append(b.delivered(ev), rememberSent(msg, sent)), true, nil
	case err == nil:
		b.log.Info().Stringer("event_id", ev.ID).Msg("A message in doubt has not reached the network, or not whole; it is sent")
		return nil, false, nil
	case IsInDoubt(err):
		return b.undecided(doubt)
	case session != b.session() && (IsPermanent(err) || errors.Is(err, ErrOffline) && time.Since(b.started) > loginPatience):
		return b.undecided(doubt) // it may never come again, and others wait behind the message
	case errors.Is(err, ErrOffline) && session == b.session():
		b.setOffline(true)
	}
	return nil, true, appservice.LaterInDoubt(err)
}

// undecided is for what nobody can find out.
func (b *Bridge) undecided(doubt error) ([]appservice.Effect, bool, error) {
	if b.guarantee() == AtMostOnce {
		return nil, true, appservice.Permanent(doubt)
	}
	return nil, false, nil
}
