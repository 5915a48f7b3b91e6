//go:build goolm

package olmclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Event is what a device saw of an event.
type Event struct {
	Room      id.RoomID
	ID        id.EventID
	Sender    id.UserID
	Type      string // of what was encrypted, when it could be read
	StateKey  *string
	Content   map[string]any
	Encrypted bool          // it was, and could be read
	Trust     id.TrustState // in the device that has sent it, when it was encrypted
	// InTheClear tells that it was not encrypted in a room that is. State, redactions and reactions never are.
	InTheClear bool
	Err        error // why it could not be read, or [ErrUntrusted]: it could be, but its sender's device is not trusted

	raw *event.Event
}

// record is what a client has seen.
type record struct {
	mu         sync.Mutex
	changed    chan struct{} // closed and replaced after each answer of /sync
	seen       []*Event
	known      map[id.EventID]bool
	inRooms    map[id.RoomID]bool
	invites    map[id.RoomID]bool
	deviceKeys map[id.UserID][]mautrix.DeviceKeys
}

func (r *record) init() {
	r.changed = make(chan struct{})
	r.known = make(map[id.EventID]bool)
	r.inRooms, r.invites = make(map[id.RoomID]bool), make(map[id.RoomID]bool)
	r.deviceKeys = make(map[id.UserID][]mautrix.DeviceKeys)
}

func (r *record) add(ev *Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known[ev.ID] {
		r.known[ev.ID] = true
		r.seen = append(r.seen, ev)
	}
}

// unread are the events that could not be read yet.
func (r *record) unread() (out []*Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.seen {
		if ev.Err != nil {
			out = append(out, ev)
		}
	}
	return out
}

func (r *record) replace(ev, by *Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.seen {
		if r.seen[i] == ev {
			r.seen[i] = by
		}
	}
}

func (r *record) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *record) in(room id.RoomID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inRooms[room]
}

// joined notes that the user is in a room, and tells whether that is new.
func (r *record) joined(room id.RoomID) (fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh = !r.inRooms[room]
	r.inRooms[room] = true
	return fresh
}

func (r *record) left(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inRooms, room)
}

func (r *record) invited(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.invites[room] = true
}

func (r *record) transcript() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, ev := range r.seen {
		content, _ := json.Marshal(ev.Content)
		fmt.Fprintf(&b, "  %s %s %s in the clear: %v, error: %v: %.300s\n", ev.ID, ev.Sender, ev.Type, ev.InTheClear, ev.Err, content)
	}
	return b.String()
}

// Seen are the events so far that match accepts, in the order in which they came.
func (c *Client) Seen(match func(*Event) bool) (out []*Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ev := range c.seen {
		if match(ev) {
			out = append(out, ev)
		}
	}
	return out
}

// WaitFor waits for an event that match accepts, among all that were and will be seen. what names it when it does not come.
func (c *Client) WaitFor(what string, match func(*Event) bool) *Event {
	c.tb.Helper()
	var found []*Event
	c.WaitUntil(what, func() bool {
		found = c.Seen(match)
		return len(found) > 0
	})
	return found[0]
}

// WaitForInvite waits until the user is invited to a room.
func (c *Client) WaitForInvite(room id.RoomID) {
	c.tb.Helper()
	c.WaitUntil("an invitation to "+string(room), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.invites[room]
	})
}

// WaitUntil asks after each answer of /sync whether something is so.
func (c *Client) WaitUntil(what string, ready func() bool) {
	c.tb.Helper()
	timeout := time.After(patience)
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if ready() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			c.tb.Fatalf("%s on %s has not seen %s within %s", c.User, c.Device, what, patience)
		}
	}
}

// Text accepts a text message that could be read.
func Text(room id.RoomID, text string) func(*Event) bool {
	return func(ev *Event) bool {
		return ev.Room == room && ev.Type == event.EventMessage.Type && ev.Err == nil && ev.Content["body"] == text
	}
}

// Joined accepts the joining of a user.
func Joined(room id.RoomID, user id.UserID) func(*Event) bool {
	return func(ev *Event) bool {
		return ev.Room == room && ev.Type == event.StateMember.Type && ev.StateKey != nil && *ev.StateKey == string(user) && ev.Content["membership"] == "join"
	}
}

// Unread are the events of a room that could not be read.
func (c *Client) Unread(room id.RoomID) []*Event {
	return c.Seen(func(ev *Event) bool { return ev.Room == room && ev.Err != nil && !errors.Is(ev.Err, ErrUntrusted) })
}

// Untrusted are the events of a room whose devices nobody vouches for.
func (c *Client) Untrusted(room id.RoomID) []*Event {
	return c.Seen(func(ev *Event) bool { return ev.Room == room && errors.Is(ev.Err, ErrUntrusted) })
}

// InTheClear are the events of an encrypted room that were not encrypted.
func (c *Client) InTheClear(room id.RoomID) []*Event {
	return c.Seen(func(ev *Event) bool { return ev.Room == room && ev.InTheClear })
}

// Wrong are the events of a room that could not be read, were not to be trusted, or came in the clear.
func (c *Client) Wrong(room id.RoomID) []*Event {
	return c.Seen(func(ev *Event) bool { return ev.Room == room && (ev.Err != nil || ev.InTheClear) })
}

// Clean fails the test for every event of a room that is wrong.
func (c *Client) Clean(room id.RoomID) {
	c.tb.Helper()
	for _, ev := range c.Wrong(room) {
		c.tb.Errorf("%s on %s: %s of %s, a %s: in the clear: %v, error: %v", c.User, c.Device, ev.ID, ev.Sender, ev.Type, ev.InTheClear, ev.Err)
	}
}

// ByID is what was seen of an event; nil when nothing was.
func (c *Client) ByID(event id.EventID) *Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.seen) - 1; i >= 0; i-- {
		if c.seen[i].ID == event {
			return c.seen[i]
		}
	}
	return nil
}
