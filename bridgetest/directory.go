package bridgetest

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// resolveAlias finds the room of an alias, asking the appservices in whose namespace it is to make it when there is
// none. The data must not be locked.
func (hs *Homeserver) resolveAlias(ctx context.Context, id string) (string, error) {
	hs.mu.Lock()
	a := hs.aliases[id]
	var ask []*appService
	if a == nil {
		for _, as := range hs.services {
			if as.aliases.match(id) {
				ask = append(ask, as)
			}
		}
	}
	hs.mu.Unlock()
	for _, as := range ask {
		if a == nil && hs.query(ctx, as, "rooms/"+quote(id)) {
			hs.mu.Lock()
			a = hs.aliases[id]
			hs.mu.Unlock()
		}
	}
	if a == nil {
		return "", notFound("Room alias %s not found", id)
	}
	return a.room.id, nil
}

func (hs *Homeserver) getAlias(c *call) (any, error) {
	if !strings.HasPrefix(c.vars["alias"], "#") {
		return nil, badRequest("M_INVALID_PARAM", "Room alias invalid")
	}
	roomID, err := hs.resolveAlias(c.Context(), c.vars["alias"])
	if err != nil {
		return nil, err
	}
	return map[string]any{"room_id": roomID, "servers": []string{hs.opts.ServerName}}, nil
}

// mayOwnAlias refuses aliases in the exclusive namespace of another appservice.
func (hs *Homeserver) mayOwnAlias(c *call, id string) error {
	for _, as := range hs.services {
		if as != c.who.service && as.exclusiveAliases.match(id) {
			return badRequest("M_EXCLUSIVE", "This alias is reserved by an application service.")
		}
	}
	if c.who.service != nil && !c.who.service.aliases.match(id) {
		return badRequest("M_EXCLUSIVE", "This application service has not reserved this kind of alias.")
	}
	return nil
}

func (hs *Homeserver) putAlias(c *call) (any, error) {
	var req struct {
		RoomID string `json:"room_id"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	id := c.vars["alias"]
	if !strings.HasPrefix(id, "#") || !strings.HasSuffix(id, ":"+hs.opts.ServerName) {
		return nil, badRequest("M_INVALID_PARAM", "Room alias invalid")
	}
	r := hs.rooms[req.RoomID]
	if r == nil {
		return nil, badRequest("M_UNKNOWN", "Room does not exist")
	}
	if c.who.service == nil && !r.joined(c.user()) {
		return nil, forbidden("You must be in the room to create an alias for it")
	}
	if err := hs.mayOwnAlias(c, id); err != nil {
		return nil, err
	}
	if hs.aliases[id] != nil {
		return nil, refuse(http.StatusConflict, "M_UNKNOWN", "Room alias %s already exists", id)
	}
	hs.aliases[id] = &alias{r, c.user()}
	return struct{}{}, nil
}

func (hs *Homeserver) deleteAlias(c *call) (any, error) {
	id := c.vars["alias"]
	if c.who.service != nil { // is not told whether there was one
		if err := hs.mayOwnAlias(c, id); err != nil {
			return nil, err
		}
		delete(hs.aliases, id)
		return struct{}{}, nil
	}
	a := hs.aliases[id]
	if a == nil {
		return nil, notFound("Room alias %s not found", id)
	}
	if a.creator != c.user() && a.room.powerLevel(c.user()) < a.room.neededToSend("m.room.canonical_alias", true) {
		return nil, forbidden("You don't have permission to delete the alias.")
	}
	delete(hs.aliases, id)
	return struct{}{}, nil
}

func (hs *Homeserver) getRoomAliases(c *call) (any, error) {
	r, err := hs.roomOf(c)
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for id, a := range hs.aliases {
		if a.room == r {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return map[string]any{"aliases": ids}, nil
}
