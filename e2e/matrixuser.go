package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// patience is how long a test waits for a line to cross. It is long, because nothing is learnt from a slow machine.
const patience = 2 * time.Minute

// MatrixUser is a user of the homeserver with a client that syncs all the time and keeps everything it has seen.
type MatrixUser struct {
	ID     id.UserID
	Client *mautrix.Client

	tb      testing.TB
	changed chan struct{} // closed and replaced when something was added

	mu      sync.Mutex
	events  []*event.Event // of the timelines of all rooms, in the order in which they came, each once
	known   map[id.EventID]bool
	typing  map[id.RoomID][]id.UserID
	invites map[id.RoomID]bool
}

// A filter whose timeline never leaves anything out of what a test can produce between two syncs.
const syncFilter = `{"room":{"timeline":{"limit":1000}},"presence":{"types":[]}}`

func startMatrixUser(tb testing.TB, client *mautrix.Client) *MatrixUser {
	u := &MatrixUser{
		ID: client.UserID, Client: client, tb: tb,
		changed: make(chan struct{}), known: map[id.EventID]bool{},
		typing: map[id.RoomID][]id.UserID{}, invites: map[id.RoomID]bool{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.sync(ctx)
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
		if tb.Failed() {
			tb.Logf("what %s has seen:\n%s", u.ID, u.transcript())
		}
	})
	return u
}

// sync goes on through every error: the homeserver is restarted under it.
func (u *MatrixUser) sync(ctx context.Context) {
	since := ""
	for ctx.Err() == nil {
		resp, err := u.Client.FullSyncRequest(ctx, mautrix.ReqSync{Timeout: 20_000, Since: since, FilterID: syncFilter})
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		since = resp.NextBatch
		u.take(resp)
	}
}

func (u *MatrixUser) take(resp *mautrix.RespSync) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for room := range resp.Rooms.Invite {
		u.invites[room] = true
	}
	for room, joined := range resp.Rooms.Join {
		for _, ev := range joined.Timeline.Events {
			if u.known[ev.ID] {
				continue
			}
			u.known[ev.ID] = true
			ev.RoomID = room
			u.events = append(u.events, ev)
		}
		for _, ev := range joined.Ephemeral.Events {
			if ev.Type.Type == event.EphemeralEventTyping.Type {
				_ = ev.Content.ParseRaw(event.EphemeralEventTyping)
				u.typing[room] = ev.Content.AsTyping().UserIDs
			}
		}
	}
	close(u.changed)
	u.changed = make(chan struct{})
}

// WaitFor waits for an event that match accepts, among all that were and will be seen. what names it when it does not
// come.
func (u *MatrixUser) WaitFor(what string, match func(ev *event.Event) bool) *event.Event {
	u.tb.Helper()
	var found *event.Event
	u.waitUntil(what, func() bool {
		for _, ev := range u.events {
			if match(ev) {
				found = ev
				return true
			}
		}
		return false
	})
	return found
}

// WaitForInvite waits until the user is invited to the room.
func (u *MatrixUser) WaitForInvite(room id.RoomID) {
	u.tb.Helper()
	u.waitUntil("an invitation to "+room.String(), func() bool { return u.invites[room] })
}

// waitUntil calls ready, with mu held, after each sync until it returns true.
func (u *MatrixUser) waitUntil(what string, ready func() bool) {
	u.tb.Helper()
	timeout := time.After(patience)
	for {
		u.mu.Lock()
		ok, changed := ready(), u.changed
		u.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			u.tb.Fatalf("%s has not seen %s within %s", u.ID, what, patience)
		}
	}
}

// Count says how many of the events seen so far match accepts.
func (u *MatrixUser) Count(match func(ev *event.Event) bool) int { return len(u.Seen(match)) }

// Seen returns the events seen so far that match accepts, in the order of the timeline.
func (u *MatrixUser) Seen(match func(ev *event.Event) bool) []*event.Event {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []*event.Event
	for _, ev := range u.events {
		if match(ev) {
			list = append(list, ev)
		}
	}
	return list
}

func (u *MatrixUser) transcript() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var b strings.Builder
	for _, ev := range u.events {
		state := ""
		if ev.StateKey != nil {
			state = fmt.Sprintf(" [%s]", *ev.StateKey)
		}
		fmt.Fprintf(&b, "  %s %s%s %s\n", ev.Sender, ev.Type.Type, state, ev.Content.VeryRaw)
	}
	return b.String()
}
