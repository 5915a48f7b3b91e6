package bridge

import (
	"context"
	"fmt"

	"maunium.net/go/mautrix/id"
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

// onlyMembers makes the row that compares the whole list of a channel's users with the ghosts in the room: who is missing
// joins, who is gone leaves. It is how the bridge finds out what happened while it was away. The comparison is made when
// the row's turn comes, after the joins and leaves before it.
func onlyMembers(p *portal, users []RemoteUser, reason string) []*outgoing {
	return []*outgoing{{Op: opMembers, Room: p.Room, Channel: p.Channel, Users: users, Reason: reason}}
}

// syncMembers carries out an onlyMembers row. Doing it twice does no harm. A ghost that may not join (banned, perhaps)
// does not keep the others out.
func (b *Bridge) syncMembers(ctx context.Context, o *outgoing) error {
	members, err := b.store.Members(ctx, string(o.Room))
	if err != nil {
		return fmt.Errorf("reading the members of %s: %w", o.Room, err)
	}
	present := make(map[id.UserID]bool, len(o.Users))
	for _, user := range o.Users {
		present[b.ghostID(user)] = true
	}
	for user, membership := range members {
		ghost := id.UserID(user)
		if membership != "join" || present[ghost] || !b.as.IsGhost(ghost) || ghost == b.as.Bot().UserID() {
			continue
		}
		if err := b.tolerate(b.as.Ghost(ghost).Leave(ctx, o.Room, o.Reason)); err != nil {
			return err
		}
	}
	for _, user := range o.Users {
		if members[string(b.ghostID(user))] == "join" {
			continue
		}
		_, err := b.ghostInRoom(ctx, &outgoing{Room: o.Room, User: &user})
		if err := b.tolerate(err); err != nil {
			return err
		}
	}
	return nil
}

// tolerate logs what no repetition mends, and returns the rest.
func (b *Bridge) tolerate(err error) error {
	if err != nil && isPermanent(err) {
		b.log.Warn().Err(err).Msg("A ghost could not come or go")
		return nil
	}
	return err
}
