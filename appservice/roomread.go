package appservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// membersAtOnce is how many members of a room that is being read go into one commit, which others wait for.
const membersAtOnce = 500

// readRoom reads the whole state of a room that the user is in, with one request however many members it has, and stores
// what the bridge has to know of it. The answer is taken apart as it comes: a room of 10,000 members is 10 MB of it.
// What events say meanwhile and later is newer, and stays; see [AppService.roomChange]. again is false for a room that
// only has to be read if it never was.
func (i *Intent) readRoom(ctx context.Context, room id.RoomID, again bool) error {
	unlock, err := i.as.locks.Lock(ctx, "room "+string(room))
	if err != nil {
		return err
	}
	defer unlock()
	if known, err := i.as.store.KnowsRoom(ctx, string(room)); err != nil || known && !again {
		return err
	}
	before, err := i.as.store.Members(ctx, string(room))
	if err != nil {
		return fmt.Errorf("read room %s: %w", room, err)
	}
	for user := range before {
		if !i.as.isOwn(id.UserID(user)) {
			delete(before, user) // the intents of own users know better than an answer that is under way
		}
	}
	err = i.as.store.Commit(ctx, i.as.epoch, func(tx *store.Tx) error { return tx.BeginRoom(string(room), before) })
	if err != nil {
		return fmt.Errorf("read room %s: %w", room, err)
	}
	cli := i.client("")
	_, resp, err := cli.MakeFullRequestWithResp(ctx, mautrix.FullRequest{
		Method: http.MethodGet, URL: cli.BuildClientURL("v3", "rooms", room, "state"), DontReadResponse: true,
	})
	if err != nil {
		return fmt.Errorf("read the state of %s as %s: %w", room, i.user, i.as.explain(err))
	}
	defer resp.Body.Close()
	if err := i.as.takeRoom(ctx, room, resp.Body); err != nil {
		return fmt.Errorf("read the state of %s as %s: %w", room, i.user, err)
	}
	return nil
}

// stateEvent is what of a state event has to be known.
type stateEvent struct {
	Type     string         `json:"type"`
	StateKey *string        `json:"state_key"`
	Content  jsontext.Value `json:"content"`
}

// keptState says which pieces of state, with an empty state key, are kept, and how: create events whole, because from room
// version 12 on it matters who sent them.
func keptState(ev *stateEvent, whole []byte) []byte {
	if ev.StateKey == nil || *ev.StateKey != "" {
		return nil
	}
	switch ev.Type {
	case event.StateCreate.Type:
		return whole
	case event.StatePowerLevels.Type, event.StateJoinRules.Type, event.StateEncryption.Type, event.StateHistoryVisibility.Type:
		return ev.Content
	}
	return nil
}

// takeRoom stores what is kept of a room's state, an array of events.
func (as *AppService) takeRoom(ctx context.Context, room id.RoomID, body io.Reader) error {
	dec := jsontext.NewDecoder(body, lenient)
	if token, err := dec.ReadToken(); err != nil {
		return err
	} else if token.Kind() != '[' {
		return errors.New("the homeserver did not answer with a list of events")
	}
	members, state, encrypted := map[string]string{}, map[string][]byte{}, false
	commit := func(last bool) error {
		err := as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
			if last {
				if err := tx.SetEncrypted(string(room), encrypted); err != nil {
					return err
				}
			}
			return tx.ReadRoom(string(room), members, state, last)
		})
		members = map[string]string{}
		return err
	}
	for kind := dec.PeekKind(); kind != ']' && kind != 0; kind = dec.PeekKind() { // 0: cut off, or no JSON
		raw, err := dec.ReadValue()
		if err != nil {
			return err
		}
		var ev stateEvent
		if json.Unmarshal(raw, &ev, lenient) != nil {
			continue
		}
		if keep := keptState(&ev, raw); keep != nil {
			state[ev.Type] = append([]byte(nil), keep...)
		}
		switch {
		case ev.StateKey == nil:
		case ev.Type == event.StateEncryption.Type && *ev.StateKey == "":
			encrypted = true
		case ev.Type == event.StateMember.Type:
			if membership := membershipOf(ev.Content); membership != "" && membership != "leave" && len(*ev.StateKey) <= maxID {
				members[*ev.StateKey] = membership
			}
		}
		if len(members) >= membersAtOnce {
			if err := commit(false); err != nil {
				return err
			}
		}
	}
	if _, err := dec.ReadToken(); err != nil { // the end of the list: what is cut off is not the whole
		return err
	}
	return commit(true)
}

// knownState gives a piece of a room's state from the store, or nil where the room has none. A room that is not known is
// read first.
func (i *Intent) knownState(ctx context.Context, room id.RoomID, evType event.Type) ([]byte, error) {
	if err := i.readRoom(ctx, room, false); err != nil {
		return nil, err
	}
	content, err := i.as.store.RoomState(ctx, string(room), evType.Type)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return content, err
}

// PowerLevels says who may do what in a room, as far as events have told; a room that the bridge does not know is read first.
// The result knows the room's creators, who from room version 12 on stand above every level without being listed (MSC4289):
// ask it with GetUserLevel.
func (i *Intent) PowerLevels(ctx context.Context, room id.RoomID) (*event.PowerLevelsEventContent, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	levels := &event.PowerLevelsEventContent{}
	content, err := i.knownState(ctx, room, event.StatePowerLevels)
	if err != nil {
		return nil, err
	}
	if content != nil {
		if err := json.Unmarshal(content, levels, lenient); err != nil {
			return nil, fmt.Errorf("read the power levels of %s: %w", room, err)
		}
	}
	if content, err = i.knownState(ctx, room, event.StateCreate); err != nil || content == nil {
		return levels, err
	}
	create := &event.Event{}
	if err := json.Unmarshal(content, create, lenient); err != nil {
		return nil, fmt.Errorf("read who created %s: %w", room, err)
	}
	create.Type.Class, create.RoomID = event.StateEventType, room
	_ = create.Content.ParseRaw(create.Type)
	levels.CreateEvent = create
	return levels, nil
}

// MaySend says whether the user's power suffices to send events of a type into a room; state events when evType says so.
// It asks the store: the homeserver has the last word.
func (i *Intent) MaySend(ctx context.Context, room id.RoomID, evType event.Type) (bool, error) {
	levels, err := i.PowerLevels(ctx, room)
	if err != nil {
		return false, err
	}
	return levels.GetUserLevel(i.user) >= levels.GetEventLevel(evType), nil
}

// MayRedact says whether the user's power suffices to redact what sender has sent into a room.
func (i *Intent) MayRedact(ctx context.Context, room id.RoomID, sender id.UserID) (bool, error) {
	levels, err := i.PowerLevels(ctx, room)
	if err != nil {
		return false, err
	}
	level := levels.GetUserLevel(i.user)
	return level >= levels.GetEventLevel(event.EventRedaction) && (sender == i.user || level >= levels.Redact()), nil
}

// Joined gives who is in a room, as far as events have told; a room that the bridge does not know is read first. What others
// do shows when its event has come in; [Intent.Members] asks the homeserver.
func (i *Intent) Joined(ctx context.Context, room id.RoomID) ([]id.UserID, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	if err := i.readRoom(ctx, room, false); err != nil {
		return nil, err
	}
	members, err := i.as.store.Members(ctx, string(room))
	if err != nil {
		return nil, err
	}
	var joined []id.UserID
	for user, membership := range members {
		if membership == "join" {
			joined = append(joined, id.UserID(user))
		}
	}
	return joined, nil
}

// KnowRoom makes sure that the store knows a room: one that it does not know is read, as the user, who must be in it.
func (i *Intent) KnowRoom(ctx context.Context, room id.RoomID) error {
	if err := i.EnsureRegistered(ctx); err != nil {
		return err
	}
	return i.readRoom(ctx, room, false)
}
