package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
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
	h := histories{
		log: b.log, away: b.as.HomeserverAway,
		ask:  func(ctx context.Context) { _, _ = b.as.Bot().JoinedRooms(ctx) },
		read: func(ctx context.Context, room id.RoomID) (int, error) { return b.catchUp(ctx, room, since) },
	}
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
	found, failed, err := h.readAll(ctx, slices.Compact(rooms))
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

// histories are asked of the homeserver, and what is in them goes into the bridge's own store.
type histories struct {
	log  zerolog.Logger
	away func() bool           // the homeserver cannot be reached
	ask  func(context.Context) // asks it for something else
	read func(ctx context.Context, room id.RoomID) (fresh int, err error)
}

// ofHomeserver says whether an error is the homeserver's answer, or that there was none.
func ofHomeserver(err error) bool {
	var answer mautrix.HTTPError
	return errors.As(err, &answer)
}

// back waits until the homeserver answers. It says whether it does.
func (h histories) back(ctx context.Context) bool {
	for h.away() {
		if !pause(ctx, catchUpAgain(1)) {
			return false
		}
		h.ask(ctx)
	}
	return true
}

// readAll goes round the rooms. One that cannot be read does not keep the others waiting. What fails because of the bridge's own store, as when its disk is full, is
// tried until it does not: to give that up would be to forget what the homeserver still has. The error is the last.
func (h histories) readAll(ctx context.Context, rooms []id.RoomID) (found int, failed []string, last error) {
	refused := map[id.RoomID]int{}
	for round := 1; len(rooms) > 0; round++ {
		var again []id.RoomID
		var own error
		for _, room := range rooms {
			if !pause(ctx, catchUpPace) {
				return found, failed, last
			}
			fresh, err := h.read(ctx, room)
			if err != nil && h.away() {
				if !h.back(ctx) {
					return found, failed, err
				}
				fresh, err = h.read(ctx, room) // without an answer again, it is the room
			}
			found += fresh
			if ofHomeserver(err) {
				refused[room]++
			}
			switch {
			case err == nil:
			case appservice.IsPermanent(err) || refused[room] == catchUpRounds:
				failed, last = append(failed, room.String()), err
			case ofHomeserver(err):
				again = append(again, room)
			default:
				again, own = append(again, room), err
			}
		}
		if own != nil {
			h.log.Warn().Err(own).Int("rooms", len(again)).Msg("What the homeserver forgot to send cannot be taken in now; it is tried until it can")
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
