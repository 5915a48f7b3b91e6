package bridgetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"maunium.net/go/mautrix/id"
)

// inbox holds what a user's client read from /sync and WaitFor has not yet returned.
type inbox struct {
	turn chan struct{} // full while somebody reads /sync

	mu      sync.Mutex
	since   string
	seen    []Event
	changed chan struct{} // closed and replaced when seen grows
}

func (b *inbox) init() {
	b.turn = make(chan struct{}, 1)
	b.changed = make(chan struct{})
}

// take removes and returns the first event that matches; otherwise it returns what tells of new events.
func (b *inbox) take(room id.RoomID, open func(Event) Event, match func(Event) bool) (Event, bool, chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, ev := range b.seen {
		ev = open(ev)
		if (room == "" || ev.RoomID == room) && match(ev) {
			b.seen = slices.Delete(b.seen, i, i+1)
			return ev, true, nil
		}
	}
	return Event{}, false, b.changed
}

func (b *inbox) add(events []Event, since string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = since
	if len(events) > 0 {
		b.seen = append(b.seen, events...)
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// WaitFor waits until the user's client sees an event that matches in this room (in any, and to-device messages too,
// when room is empty), and returns the first such event. Nothing is missed between calls: the search begins with
// the oldest event since the user exists. No event is returned twice, so that the second wait for the same text
// finds the second message. When ctx ends the error tells what was seen in the room instead.
func (u *User) WaitFor(ctx context.Context, room id.RoomID, match func(Event) bool) (Event, error) {
	for {
		ev, found, changed := u.inbox.take(room, u.open, match)
		if found {
			return ev, nil
		}
		var err error
		select {
		case <-changed:
		case u.inbox.turn <- struct{}{}:
			select {
			case <-changed: // somebody else's reading brought something meanwhile: look at that first
			default:
				err = u.sync(ctx)
			}
			<-u.inbox.turn
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			if ctx.Err() != nil {
				err = errors.Join(ctx.Err(), errors.New(u.inbox.describe(room)))
			}
			return Event{}, fmt.Errorf("%s waits for an event in %s: %w", u.id, room, err)
		}
	}
}

// describe says what came and was not wanted, for whoever reads the failed test.
func (b *inbox) describe(room id.RoomID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	s.WriteString("not among what was seen:")
	shown := 0
	for i := len(b.seen) - 1; i >= 0 && shown < 20; i-- {
		ev := b.seen[i]
		if room == "" || ev.RoomID == room {
			content, _ := json.Marshal(ev.Content)
			fmt.Fprintf(&s, "\n  %s by %s: %.200s", ev.Type, ev.Sender, content)
			shown++
		}
	}
	return s.String()
}

const wholeTimeline = `{"room":{"timeline":{"limit":100000}}}`

type syncAnswer struct {
	NextBatch string `json:"next_batch"`
	ToDevice  struct {
		Events []json.RawMessage `json:"events"`
	} `json:"to_device"`
	Rooms struct {
		Join map[id.RoomID]struct {
			Timeline, Ephemeral struct {
				Events []json.RawMessage `json:"events"`
			}
		} `json:"join"`
		Leave map[id.RoomID]struct {
			Timeline struct {
				Events []json.RawMessage `json:"events"`
			}
		} `json:"leave"`
		Invite map[id.RoomID]struct {
			InviteState struct {
				Events []json.RawMessage `json:"events"`
			} `json:"invite_state"`
		} `json:"invite"`
	} `json:"rooms"`
}

// sync reads /sync once (the caller has the turn), for at most ten seconds.
func (u *User) sync(ctx context.Context) error {
	query := url.Values{"timeout": {"10000"}, "filter": {wholeTimeline}}
	u.inbox.mu.Lock()
	since := u.inbox.since
	u.inbox.mu.Unlock()
	if since != "" {
		query.Set("since", since)
	}
	var a syncAnswer
	if err := u.Do(ctx, http.MethodGet, "sync?"+query.Encode(), nil, &a); err != nil {
		return err
	}
	var events []Event
	add := func(room id.RoomID, list []json.RawMessage) error {
		for _, raw := range list {
			ev, err := parseEvent(raw, room)
			if err != nil {
				return fmt.Errorf("an event of %s: %w", room, err)
			}
			events = append(events, ev)
		}
		return nil
	}
	err := add("", a.ToDevice.Events)
	for room, r := range a.Rooms.Invite {
		err = errors.Join(err, add(room, r.InviteState.Events))
	}
	for room, r := range a.Rooms.Leave {
		err = errors.Join(err, add(room, r.Timeline.Events))
	}
	for room, r := range a.Rooms.Join {
		err = errors.Join(err, add(room, r.Timeline.Events), add(room, r.Ephemeral.Events))
	}
	if err != nil {
		return err
	}
	u.inbox.add(events, a.NextBatch)
	return nil
}

// WaitForInvite waits until somebody invites the user, and returns the room.
func (u *User) WaitForInvite(ctx context.Context) (id.RoomID, error) {
	invited := Member(u.id, "invite")
	ev, err := u.WaitFor(ctx, "", func(ev Event) bool {
		return ev.ID == "" && invited(ev) // stripped: an invite that is open, not one in a room's history
	})
	return ev.RoomID, err
}
