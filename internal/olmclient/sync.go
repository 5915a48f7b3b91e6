//go:build goolm

package olmclient

import (
	"context"
	"errors"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// A homeserver may give fewer: what a timeline leaves out is asked for.
const filter = `{"room":{"timeline":{"limit":1000}},"presence":{"types":[]}}`

// run goes on through every error but the end of the device: the homeserver is restarted under it.
func (c *Client) run(ctx context.Context) {
	defer close(c.done)
	since := ""
	for ctx.Err() == nil {
		answer, err := c.Matrix.FullSyncRequest(ctx, mautrix.ReqSync{Timeout: 20_000, Since: since, FilterID: filter})
		if errors.Is(err, mautrix.MUnknownToken) {
			return
		}
		if err != nil {
			pause(ctx)
			continue
		}
		c.keys(ctx, answer, since)
		gaps := c.gaps(ctx, answer, since)
		c.using.Lock()
		c.rooms(ctx, answer, gaps, since == "")
		c.reread(ctx)
		c.using.Unlock()
		c.tell()
		since = answer.NextBatch
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
}

// keys takes in device lists, to-device messages and key counts. mautrix forgets the users whose devices it could not ask for.
func (c *Client) keys(ctx context.Context, answer *mautrix.RespSync, since string) {
	for ctx.Err() == nil && len(answer.DeviceLists.Changed) > 0 {
		c.using.Lock()
		_, err := c.machine.FetchKeys(ctx, answer.DeviceLists.Changed, false)
		c.using.Unlock()
		if err == nil {
			break
		}
		pause(ctx)
	}
	answer.DeviceLists = mautrix.DeviceLists{}
	c.using.Lock()
	defer c.using.Unlock()
	for _, ev := range answer.ToDevice.Events {
		c.peek(ev)
	}
	c.machine.ProcessSyncResponse(ctx, answer, since)
}

// gaps asks for what the timelines left out since the last answer, oldest first.
func (c *Client) gaps(ctx context.Context, answer *mautrix.RespSync, since string) map[id.RoomID][]*event.Event {
	out := make(map[id.RoomID][]*event.Event)
	for room, joined := range answer.Rooms.Join {
		if !joined.Timeline.Limited || since == "" || !c.in(room) {
			continue
		}
		for from := joined.Timeline.PrevBatch; from != "" && ctx.Err() == nil; {
			page, err := c.Matrix.Messages(ctx, room, from, since, mautrix.DirectionBackward, nil, 500)
			if err != nil {
				pause(ctx)
				continue
			}
			out[room] = append(out[room], page.Chunk...)
			from = page.End
		}
		slices.Reverse(out[room])
	}
	return out
}

// rooms takes in what happened in rooms. The first answer, and what is before the user's joining, is history.
func (c *Client) rooms(ctx context.Context, answer *mautrix.RespSync, gaps map[id.RoomID][]*event.Event, first bool) {
	for room := range answer.Rooms.Invite {
		c.invited(room)
	}
	for room := range answer.Rooms.Leave {
		c.left(room)
	}
	for room, joined := range answer.Rooms.Join {
		fresh := c.joined(room)
		for _, ev := range gaps[room] {
			c.event(ctx, room, ev)
		}
		for _, ev := range joined.State.Events {
			c.stateEvent(ctx, room, ev)
		}
		begin := 0
		switch {
		case first:
			begin = len(joined.Timeline.Events)
		case fresh:
			for i, ev := range joined.Timeline.Events {
				if ev.Type.Type == event.StateMember.Type && ev.GetStateKey() == string(c.User) {
					begin = i
				}
			}
		}
		for i, ev := range joined.Timeline.Events {
			if ev.StateKey != nil {
				c.stateEvent(ctx, room, ev)
			}
			if i >= begin {
				c.event(ctx, room, ev)
			}
		}
	}
}

// stateEvent keeps what the machine asks for, and changes the keys when somebody comes or goes.
func (c *Client) stateEvent(ctx context.Context, room id.RoomID, ev *event.Event) {
	ev.RoomID = room
	ev.Type.Class = event.StateEventType
	if ev.Content.Parsed == nil && ev.Content.ParseRaw(ev.Type) != nil {
		return
	}
	mautrix.UpdateStateStore(ctx, c.state, ev)
	switch ev.Type {
	case event.StateMember:
		c.machine.HandleMemberEvent(ctx, ev)
	case event.StateHistoryVisibility:
		c.machine.HandleHistoryVisibility(ctx, ev)
	}
}

// event records one, decrypted when it was encrypted.
func (c *Client) event(ctx context.Context, room id.RoomID, ev *event.Event) {
	ev.RoomID = room
	if ev.StateKey != nil {
		ev.Type.Class = event.StateEventType
	} else {
		ev.Type.Class = event.MessageEventType
	}
	seen := &Event{Room: room, ID: ev.ID, Sender: ev.Sender, Type: ev.Type.Type, StateKey: ev.StateKey, Content: ev.Content.Raw, raw: ev}
	switch {
	case ev.Type == event.EventEncrypted && ev.Unsigned.RedactedBecause != nil:
	case ev.Type == event.EventEncrypted:
		if ev.Content.Parsed == nil {
			_ = ev.Content.ParseRaw(ev.Type)
		}
		c.decrypt(ctx, seen)
	case ev.StateKey == nil:
		encrypted, _ := c.state.IsEncrypted(ctx, room)
		seen.InTheClear = encrypted && ev.Type != event.EventRedaction && ev.Type != event.EventReaction
	}
	c.add(seen)
}

// ErrUntrusted is why words are not accepted whose device nobody vouches for.
var ErrUntrusted = errors.New("the device is not signed by its owner")

// decrypt records what can be read also when its words are not accepted: then Err says so.
func (c *Client) decrypt(ctx context.Context, seen *Event) {
	plain, err := c.machine.DecryptMegolmEvent(ctx, seen.raw)
	if seen.Err = err; err != nil {
		return
	}
	seen.Encrypted, seen.Trust, seen.Type, seen.Content = true, plain.Mautrix.TrustState, plain.Type.Type, plain.Content.Raw
	if !c.opts.ShareWithAll && seen.Trust < id.TrustStateCrossSignedTOFU {
		seen.Err = ErrUntrusted
	}
}

// reread tries what could not be read: its key, or the signature of its device, may have come meanwhile.
func (c *Client) reread(ctx context.Context) {
	for _, seen := range c.unread() {
		again := *seen
		c.decrypt(ctx, &again)
		c.replace(seen, &again)
	}
}
