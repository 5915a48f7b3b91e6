package bridge

import (
	"context"
	"errors"
	"maps"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// memberChanges makes the rows of ghosts that leave and join a portal's room, those that leave first.
func memberChanges(p *portal, join []RemoteUser, leave []id.UserID, reason string) []*outgoing {
	rows := make([]*outgoing, 0, len(join)+len(leave))
	for _, user := range leave {
		rows = append(rows, &outgoing{Op: opLeave, Room: p.Room, Channel: p.Channel, Ghost: user, Reason: reason})
	}
	for i := range join {
		rows = append(rows, &outgoing{Op: opJoin, Room: p.Room, Channel: p.Channel, User: &join[i]})
	}
	return rows
}

// leave has a ghost leave a room. Who is refused that, and is not there as far as anybody knows, has left.
func (b *Bridge) leave(ctx context.Context, o *outgoing) error {
	err := b.as.Ghost(o.Ghost).Leave(ctx, o.Room, o.Reason)
	if errors.Is(err, mautrix.MForbidden) {
		membership, readErr := b.store.Member(ctx, string(o.Room), string(o.Ghost))
		if readErr != nil {
			return readErr
		}
		if membership != "join" {
			return nil
		}
	}
	return b.tolerate(o, err)
}

// onlyMembers makes the row that compares the whole list of a channel's users with the ghosts in the room: of who is missing a
// join is wanted, of who is gone a leave. It is how the bridge finds out what happened while it was away.
func onlyMembers(p *portal, users []RemoteUser, reason string) []*outgoing {
	return []*outgoing{{Op: opMembers, Room: p.Room, Channel: p.Channel, Users: users, Reason: reason}}
}

// syncMembers carries out an onlyMembers row: what it finds becomes rows of the ghosts, in the commit in which it goes. Who is in
// the room is asked of the homeserver, since what came in transactions may be older than what the bridge has done since. Doing
// it twice does no harm. A ghost that has a row from before the list may be in or out once that is done, and gets one in any
// case; one that has a row from after the list has been told of since.
func (b *Bridge) syncMembers(ctx context.Context, row *store.Outgoing, o *outgoing) (commit func(tx *store.Tx) error, err error) {
	moving := b.comings.moving(o.Room) // first: what is done meanwhile may be in the answer or not
	members, err := b.as.Bot().Members(ctx, o.Room)
	if err != nil {
		return nil, err
	}
	p := &portal{Room: o.Room, Channel: o.Channel}
	var wanted []*outgoing
	present := make(map[id.UserID]bool, len(o.Users))
	for _, user := range o.Users {
		ghost := b.ghostID(user)
		if _, in := members[ghost]; !present[ghost] && (!in || moving[ghost]) {
			wanted = append(wanted, memberChanges(p, []RemoteUser{user}, nil, "")...)
		}
		present[ghost] = true
	}
	for ghost := range members {
		moving[ghost] = true
	}
	for _, ghost := range slices.Sorted(maps.Keys(moving)) {
		if !present[ghost] && b.as.IsGhost(ghost) && ghost != b.as.Bot().UserID() {
			wanted = append(wanted, memberChanges(p, nil, []id.UserID{ghost}, o.Reason)...)
		}
	}
	return func(tx *store.Tx) error {
		for _, change := range wanted {
			if b.comings.movesAfter(o.Room, b.actor(change), row.ID) {
				continue
			}
			change.Listed, change.Place = true, row.ID
			if err := b.enqueue(tx, change); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// tolerate logs what no repetition mends and the next list brings up again, such as that a ghost is banned, and returns the rest.
func (b *Bridge) tolerate(o *outgoing, err error) error {
	if err != nil && o.Listed && isPermanent(err) {
		b.log.Warn().Err(err).Msg("A ghost could not come or go")
		return nil
	}
	return err
}
