package bridge

import (
	"context"

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

// syncMembers carries out an onlyMembers row. Who is in the room is asked of the homeserver, since what came in
// transactions may be older than what the bridge has done since. Doing it twice does no harm, and a ghost that may not
// join (banned, perhaps) does not keep the others out.
func (b *Bridge) syncMembers(ctx context.Context, o *outgoing) error {
	members, err := b.as.Bot().Members(ctx, o.Room)
	if err != nil {
		return err
	}
	present := make(map[id.UserID]bool, len(o.Users))
	for _, user := range o.Users {
		present[b.ghostID(user)] = true
	}
	for user := range members {
		if present[user] || !b.as.IsGhost(user) || user == b.as.Bot().UserID() {
			continue
		}
		if err := b.tolerate(b.as.Ghost(user).Leave(ctx, o.Room, o.Reason)); err != nil {
			return err
		}
	}
	for _, user := range o.Users {
		if _, in := members[b.ghostID(user)]; in {
			continue
		}
		_, err := b.ghostInRoom(ctx, &outgoing{Room: o.Room, User: &user})
		if err = b.tolerate(err); err != nil {
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
