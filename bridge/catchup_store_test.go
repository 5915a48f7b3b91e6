package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// readFor reads rooms of which each fails for a while: with what errs gives for the n-th time that it is asked for.
func readFor(t *testing.T, rooms []id.RoomID, errs func(room id.RoomID, n int) error) (found int, failed []string, asked map[id.RoomID]int) {
	asked = map[id.RoomID]int{}
	h := histories{log: zerolog.Nop(), away: func() bool { return false }, read: func(_ context.Context, room id.RoomID) (int, error) {
		asked[room]++
		if err := errs(room, asked[room]); err != nil {
			return 0, fmt.Errorf("read %s: %w", room, err)
		}
		return 1, nil
	}}
	found, failed, _ = h.readAll(t.Context(), rooms)
	return found, failed, asked
}

// The disk is full for an hour, and one room's history is refused besides: that is the homeserver's affair, and ends.
func TestCatchUp_OwnStoreFails_NoRoomIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := time.Now().Add(time.Hour)
		found, failed, asked := readFor(t, []id.RoomID{"!fine", "!refused", "!toomuch"}, func(room id.RoomID, n int) error {
			switch {
			case room == "!refused" && n > 2: // the homeserver is asked first
				return mautrix.HTTPError{Message: "refused"}
			case room == "!toomuch" && n == 4:
				return appservice.Permanent(errors.New("too much"))
			case time.Now().Before(full):
				return errors.New("the disk is full")
			}
			return nil
		})
		if want := []string{"!toomuch", "!refused"}; found != 1 || !slices.Equal(failed, want) {
			t.Errorf("%d found, and %v given up, want 1 and %v", found, failed, want)
		}
		if n := asked["!refused"]; n != 2+catchUpRounds {
			t.Errorf("the homeserver was asked %d times, want %d", n, 2+catchUpRounds)
		}
		if n := asked["!fine"]; n > 40 {
			t.Errorf("the store was tried %d times within an hour", n)
		}
	})
}

func TestCatchUp_OwnStoreFailsUntilTheEnd_TheReadingEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		h := histories{log: zerolog.Nop(), away: func() bool { return false }, read: func(context.Context, id.RoomID) (int, error) { return 0, errors.New("full") }}
		if _, failed, _ := h.readAll(ctx, []id.RoomID{"!a"}); len(failed) > 0 {
			t.Errorf("%v was given up", failed)
		}
	})
}

// What a proxy before the homeserver says when that takes too long for one room's history looks as if the homeserver were away.
func TestCatchUp_OneRoomHasNeverAnAnswer_TheOthersAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		away, asked := false, 0
		h := histories{
			log: zerolog.Nop(), away: func() bool { return away }, ask: func(context.Context) { away = false },
			read: func(_ context.Context, room id.RoomID) (int, error) {
				if away = room == "!slow"; away {
					asked++
					return 0, mautrix.HTTPError{Message: "504"}
				}
				return 1, nil
			},
		}
		found, failed, _ := h.readAll(ctx, []id.RoomID{"!slow", "!a", "!b"})
		if found != 2 || !slices.Equal(failed, []string{"!slow"}) || ctx.Err() != nil {
			t.Errorf("%d found, %v given up after %d questions", found, failed, asked)
		}
	})
}

func TestCatchUp_TheHomeserverIsAwayForLong_NoRoomIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(3 * time.Hour)
		away := func() bool { return time.Now().Before(back) }
		h := histories{log: zerolog.Nop(), away: away, ask: func(context.Context) {}, read: func(context.Context, id.RoomID) (int, error) {
			if away() {
				return 0, mautrix.HTTPError{Message: "no answer"}
			}
			return 1, nil
		}}
		if found, failed, _ := h.readAll(t.Context(), []id.RoomID{"!a", "!b"}); found != 2 || len(failed) > 0 {
			t.Errorf("%d found, %v given up", found, failed)
		}
	})
}
