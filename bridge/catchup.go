package bridge

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

const (
	// catchUpPace is between two rooms: a homeserver that was just started has other things to do.
	catchUpPace = 100 * time.Millisecond
	// catchUpTries is how often a room's history is asked for.
	catchUpTries = 5
)

// Gap reads in the histories of all portals what the homeserver may have forgotten to send: see [appservice.GapHandler].
func (b *Bridge) Gap(ctx context.Context, since, until time.Time) {
	rooms, found := b.portals.all(), 0
	for n, p := range rooms {
		if n > 0 && !pause(ctx, catchUpPace) {
			return
		}
		from := since
		if p.Created.After(from) {
			from = p.Created
		}
		if !until.IsZero() && from.After(until) {
			continue
		}
		fresh, err := b.catchUp(ctx, p.Room, from, until)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			b.log.Warn().Err(err).Time("since", since).Msg("A room was not looked through for what the homeserver forgot to send; if it forgot something, that is not bridged")
		}
		found += fresh
	}
	if found > 0 {
		b.log.Warn().Int("events", found).Time("since", since).Msg("The homeserver ended without having sent everything; it was read from the rooms' histories")
	}
}

func (b *Bridge) catchUp(ctx context.Context, room id.RoomID, since, until time.Time) (int, error) {
	for attempt := 0; ; attempt++ {
		reader, err := b.speaker(ctx, room)
		if err != nil {
			return 0, err
		}
		fresh, err := b.as.Ghost(reader).CatchUp(ctx, room, since, until)
		switch {
		case err == nil || ctx.Err() != nil:
			return fresh, err
		case errors.Is(err, mautrix.MForbidden):
			return 0, nil // nobody of ours is in the room any more
		case attempt+1 == catchUpTries || appservice.IsPermanent(err):
			return 0, err
		}
		if !pause(ctx, retryDelay(attempt)) {
			return 0, ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
