package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

const (
	// catchUpPace is between two rooms: a homeserver that was just started has other things to do.
	catchUpPace = 100 * time.Millisecond
	// catchUpRounds is how often the history of a room is asked for, of a homeserver that can be reached.
	catchUpRounds = 5
	// catchUpNamed is how many rooms that were not looked through are named.
	catchUpNamed = 20
)

// Lapse reads in the histories of the portals and of the bot's other rooms what the homeserver may have forgotten to send: see [appservice.LapseHandler].
func (b *Bridge) Lapse(ctx context.Context, since time.Time) {
	rooms, err := b.as.Bot().JoinedRooms(ctx)
	for round := 1; err != nil && (round < catchUpRounds || b.as.HomeserverAway()); round++ {
		if !pause(ctx, catchUpAgain(round)) {
			return
		}
		rooms, err = b.as.Bot().JoinedRooms(ctx)
	}
	if err != nil {
		b.log.Warn().Err(err).Msg("The homeserver does not tell in which rooms the bot is: what it forgot to send is looked for in portals alone")
	}
	for _, p := range b.portals.all() {
		if p.Room != "" {
			rooms = append(rooms, p.Room)
		}
	}
	slices.Sort(rooms)
	found, failed, err := b.catchUpAll(ctx, slices.Compact(rooms), since)
	if ctx.Err() != nil {
		return
	}
	if found > 0 {
		b.log.Info().Int("events", found).Time("since", since).Msg("The homeserver has not sent everything so far; it was read from the rooms' histories")
	}
	if len(failed) > 0 {
		b.log.Warn().Err(err).Int("rooms", len(failed)).Strs("some", failed[:min(len(failed), catchUpNamed)]).Time("since", since).
			Msg("Rooms were not looked through for what the homeserver forgot to send; if it forgot something there, that is not bridged")
	}
}

// catchUpAll goes round the rooms. One that cannot be read does not keep the others waiting. The error is the last.
func (b *Bridge) catchUpAll(ctx context.Context, rooms []id.RoomID, since time.Time) (found int, failed []string, last error) {
	for round := 1; len(rooms) > 0; round++ {
		var again []id.RoomID
		for _, room := range rooms {
			if !pause(ctx, catchUpPace) {
				return found, failed, last
			}
			fresh, err := b.catchUp(ctx, room, since)
			for err != nil && b.as.HomeserverAway() {
				if !pause(ctx, catchUpAgain(1)) {
					return found, failed, err
				}
				fresh, err = b.catchUp(ctx, room, since)
			}
			found += fresh
			switch {
			case err == nil:
			case appservice.IsPermanent(err) || round == catchUpRounds:
				failed, last = append(failed, room.String()), err
			default:
				again = append(again, room)
			}
		}
		if rooms = again; len(rooms) > 0 && !pause(ctx, catchUpAgain(round)) {
			return found, failed, last
		}
	}
	return found, failed, last
}

// catchUpAgain is how long nobody asks after a round in which not everything could be had.
func catchUpAgain(round int) time.Duration { return 5 * time.Second << min(round-1, catchUpRounds) }

func (b *Bridge) catchUp(ctx context.Context, room id.RoomID, since time.Time) (int, error) {
	reader, err := b.speaker(ctx, room)
	if err != nil {
		return 0, fmt.Errorf("find who reads in %s: %w", room, err)
	}
	fresh, err := b.as.Ghost(reader).CatchUp(ctx, room, since)
	if errors.Is(err, mautrix.MForbidden) || errors.Is(err, mautrix.MNotFound) {
		return 0, nil // nobody of ours is in the room any more, or there is none
	}
	return fresh, err
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
