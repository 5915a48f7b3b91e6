package bridge

import (
	"context"
	"errors"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

const (
	// catchUpPace is between two rooms: a homeserver that was just started has other things to do.
	catchUpPace = 100 * time.Millisecond
	// catchUpTries is how often the history of a room is asked for, of a homeserver that can be reached.
	catchUpTries = 5
)

// Gap reads in the histories of the portals and of the bot's other rooms what the homeserver may have forgotten to send: see [appservice.GapHandler].
func (b *Bridge) Gap(ctx context.Context, since time.Time) {
	var rooms []id.RoomID
	err := b.patiently(ctx, func() (err error) {
		rooms, err = b.as.Bot().JoinedRooms(ctx)
		return err
	})
	if err != nil && ctx.Err() == nil {
		b.log.Warn().Err(err).Msg("The homeserver does not tell in which rooms the bot is: what it forgot to send is looked for in portals alone")
	}
	for _, p := range b.portals.all() {
		if p.Room != "" && !slices.Contains(rooms, p.Room) {
			rooms = append(rooms, p.Room)
		}
	}
	found := 0
	for n, room := range rooms {
		if n > 0 && !pause(ctx, catchUpPace) {
			return
		}
		err := b.patiently(ctx, func() error {
			fresh, err := b.catchUp(ctx, room, since)
			found += fresh
			return err
		})
		if err != nil && ctx.Err() == nil {
			b.log.Warn().Err(err).Time("since", since).Msg("A room was not looked through for what the homeserver forgot to send; if it forgot something, that is not bridged")
		}
	}
	if found > 0 {
		b.log.Info().Int("events", found).Time("since", since).Msg("The homeserver has not sent everything so far; it was read from the rooms' histories")
	}
}

func (b *Bridge) catchUp(ctx context.Context, room id.RoomID, since time.Time) (int, error) {
	reader, err := b.speaker(ctx, room)
	if err != nil {
		return 0, err
	}
	fresh, err := b.as.Ghost(reader).CatchUp(ctx, room, since)
	if errors.Is(err, mautrix.MForbidden) {
		return 0, nil // nobody of ours is in the room any more
	}
	return fresh, err
}

// patiently asks again, and for as long as the homeserver is away.
func (b *Bridge) patiently(ctx context.Context, ask func() error) error {
	for attempt := 0; ; attempt++ {
		err := ask()
		if err == nil || ctx.Err() != nil || appservice.IsPermanent(err) {
			return err
		}
		if b.as.HomeserverAway() {
			attempt = min(attempt, 2)
		} else if attempt+1 >= catchUpTries {
			return err
		}
		if !pause(ctx, retryDelay(attempt)) {
			return ctx.Err()
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
