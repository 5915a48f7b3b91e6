package bridge

import (
	"context"
	"fmt"

	"maunium.net/go/mautrix/id"
)

// memberChanges makes the rows of ghosts that leave and join a portal's room, those that leave first.
func (b *Bridge) memberChanges(p *portal, join []RemoteUser, leave []id.UserID, reason string) []*outgoing {
	rows := make([]*outgoing, 0, len(join)+len(leave))
	for _, user := range leave {
		rows = append(rows, &outgoing{Op: opLeave, Room: p.Room, Channel: p.Channel, Ghost: user, Reason: reason})
	}
	for i := range join {
		rows = append(rows, &outgoing{Op: opJoin, Room: p.Room, Channel: p.Channel, User: &join[i]})
	}
	return rows
}

// syncMembers compares the whole list of a channel's users with the ghosts in the room: who is missing joins, who is gone
// leaves. It is how the bridge finds out what happened while it was away.
func (b *Bridge) syncMembers(ctx context.Context, p *portal, users []RemoteUser) ([]*outgoing, error) {
	members, err := b.store.Members(ctx, string(p.Room))
	if err != nil {
		return nil, fmt.Errorf("reading the members of %s: %w", p.Room, err)
	}
	var join []RemoteUser
	present := make(map[id.UserID]bool, len(users))
	for _, user := range users {
		ghost := b.ghostID(user)
		present[ghost] = true
		if members[string(ghost)] != "join" {
			join = append(join, user)
		}
	}
	return b.memberChanges(p, join, b.absentGhosts(members, present), "not in the channel any more"), nil
}

// absentGhosts returns the ghosts that are in a room but not in the given set. The bot is not one of them.
func (b *Bridge) absentGhosts(members map[string]string, present map[id.UserID]bool) []id.UserID {
	var absent []id.UserID
	for user, membership := range members {
		ghost := id.UserID(user)
		if membership == "join" && !present[ghost] && b.as.IsGhost(ghost) && ghost != b.as.Bot().UserID() {
			absent = append(absent, ghost)
		}
	}
	return absent
}
