package appservice

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// purposeField of m.room.create says what a room was created for.
const purposeField = "io.github.trestle-bridge.purpose"

// Creation is a room that is to be there once, however often it is asked for.
type Creation struct {
	// Purpose names what the room is for; the appservice has no other room for it. It stands in the room's m.room.create event, for everybody in the room to read.
	Purpose string
	// Again says that the room may have been created already: an earlier call ended with an error, or with the process. Whoever asks
	// writes down that it is going to, before it does. Without Again the homeserver is only asked to create.
	Again bool
	// Known says of a room that it is there for something else, so that it is not looked at. nil: all are.
	Known func(id.RoomID) bool
	// Request is what the room is like. With RoomAliasName it has an alias, which must be in the registration's namespaces.
	Request mautrix.ReqCreateRoom
}

// CreateRoomOnce creates a room with the user in it, or gives the one that was created for this purpose before: the one that the
// alias leads to, and of those that the user is in the one that says so of itself. Homeservers write the alias down before the room (Synapse)
// or after it (Dendrite), and may end in between. An alias that leads to no room is taken back first.
//
// One call at a time for one purpose is for the caller to see to. What remains: a homeserver that is still busy creating the room
// of an earlier request, whose answer did not come, is not waited for, and one that writes down the alias last then has two rooms.
func (i *Intent) CreateRoomOnce(ctx context.Context, c *Creation) (id.RoomID, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return "", err
	}
	if c.Again {
		room, err := i.createdFor(ctx, c)
		if err != nil || room != "" {
			return room, err
		}
	}
	req := c.Request
	req.CreationContent = maps.Clone(req.CreationContent)
	if req.CreationContent == nil {
		req.CreationContent = map[string]any{}
	}
	req.CreationContent[purposeField] = c.Purpose
	room, err := i.CreateRoom(ctx, &req)
	if !errors.Is(err, mautrix.MRoomInUse) || req.RoomAliasName == "" {
		return room, err
	}
	alias := id.NewRoomAlias(req.RoomAliasName, i.as.cfg.ServerName)
	room, err = i.behind(ctx, alias)
	if err != nil || room != "" {
		return room, err
	}
	if _, err := i.deleteAlias(ctx, alias); err != nil {
		return "", err
	}
	return i.CreateRoom(ctx, &req)
}

// createdFor looks for the room among those that the user is in. None is the empty ID.
func (i *Intent) createdFor(ctx context.Context, c *Creation) (id.RoomID, error) {
	resp, err := i.client("").JoinedRooms(ctx)
	if err != nil {
		return "", fmt.Errorf("ask for the rooms of %s: %w", i.user, i.as.explain(err))
	}
	for _, room := range resp.JoinedRooms {
		if c.Known != nil && c.Known(room) {
			continue
		}
		var content map[string]any
		if err := i.State(ctx, room, event.StateCreate, "", &content); outside(err) {
			continue // it has left meanwhile, or the room is not whole
		} else if err != nil {
			return "", err
		}
		if content[purposeField] == c.Purpose {
			if err := i.joined(ctx, room); err != nil || c.Request.RoomAliasName == "" {
				return room, err
			}
			return room, i.nameRoom(ctx, room, id.NewRoomAlias(c.Request.RoomAliasName, i.as.cfg.ServerName))
		}
	}
	return "", nil
}

// nameRoom gives a room its alias, where the homeserver did not come to that.
func (i *Intent) nameRoom(ctx context.Context, room id.RoomID, alias id.RoomAlias) error {
	var content event.CanonicalAliasEventContent
	err := i.State(ctx, room, event.StateCanonicalAlias, "", &content)
	if err == nil || !errors.Is(err, mautrix.MNotFound) {
		return err // whoever has the power may have given it another
	}
	if _, err := i.client("").CreateAlias(ctx, alias, room); err != nil && errorStatus(err) != http.StatusConflict {
		return fmt.Errorf("give %s the alias %s: %w", room, alias, i.as.explain(err))
	}
	if _, err := i.SendState(ctx, room, event.StateCanonicalAlias, "", &event.CanonicalAliasEventContent{Alias: alias}); err != nil {
		return fmt.Errorf("give %s the alias %s: %w", room, alias, i.as.explain(err))
	}
	return nil
}

// behind gives the room that an alias leads to, with the user in it. None, also when there is no such room, is the empty ID.
func (i *Intent) behind(ctx context.Context, alias id.RoomAlias) (id.RoomID, error) {
	room, err := i.ResolveAlias(ctx, alias)
	if errors.Is(err, mautrix.MNotFound) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	_, err = i.JoinByIDOrAlias(ctx, room.String())
	if err == nil || !outside(err) {
		return room, err
	}
	var content map[string]any
	if created := i.State(ctx, room, event.StateCreate, "", &content); outside(created) {
		return "", nil
	} else if created != nil {
		return "", created
	}
	return "", err // it is a room, and keeps the user out
}

// deleteAlias takes back an alias, and says whether there was one.
func (i *Intent) deleteAlias(ctx context.Context, alias id.RoomAlias) (gone bool, err error) {
	cli := i.client("")
	_, err = cli.MakeRequest(ctx, http.MethodDelete, cli.BuildClientURL("v3", "directory", "room", alias), nil, nil)
	if err != nil && errorCode(err) != codeNotFound {
		return false, fmt.Errorf("delete the alias %s: %w", alias, i.as.explain(err))
	}
	return err == nil, nil
}
