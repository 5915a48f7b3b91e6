package store

import (
	"context"
	"database/sql"
)

// Belongings counts what a bridge has on its homeserver, as far as the store knows, and what is kept for it.
type Belongings struct {
	Ghosts  int64 // users that were registered, or were going to be
	Devices int64 // of them
	Rooms   int64 // rooms that any of them is in or invited to
	Stays   int64 // how often: a user in a room is one
	Portals int64
	Links   int64 // media links that work
	Waiting int64 // transactions with events that are not handled, and rows of the outbox
	Letters int64 // dead letters
}

// Belongings counts them.
func (v *Visitor) Belongings(ctx context.Context) (Belongings, error) {
	b, err := v.read.belongings(ctx)
	return b, v.telling(err)
}

func (r *reader) belongings(ctx context.Context) (b Belongings, err error) {
	err = r.one(ctx, []any{&b.Ghosts, &b.Devices, &b.Rooms, &b.Stays, &b.Portals, &b.Links, &b.Waiting, &b.Letters}, `SELECT
		(SELECT COUNT(*) FROM ghost), (SELECT COUNT(*) FROM ghost WHERE device_id <> ''),
		(SELECT COUNT(DISTINCT m.room) FROM member m JOIN ghost g ON g.user_id = m.user_id WHERE m.membership IN ('join', 'invite', 'knock')),
		(SELECT COUNT(*) FROM member m JOIN ghost g ON g.user_id = m.user_id WHERE m.membership IN ('join', 'invite', 'knock')),
		(SELECT COUNT(*) FROM portal WHERE room <> ''), (SELECT COUNT(*) FROM media WHERE revoked = 0),
		(SELECT COUNT(*) FROM inbox) + (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM dead_letter)`)
	return b, doing(err, "counting what the bridge has")
}

// AnyGhost gives a registered user other than but; ErrNotFound when there is none.
func (v *Visitor) AnyGhost(ctx context.Context, but string) (userID string, err error) {
	err = v.read.one(ctx, []any{text{&userID}}, `SELECT user_id FROM ghost WHERE registered = 1 AND user_id <> $1 ORDER BY user_id LIMIT 1`, toColumn(but))
	return userID, v.telling(doing(err, "looking for a ghost"))
}

// Stays gives the rooms that each registered user is known to be in, to be invited to, or to have been in.
func (s *Store) Stays(ctx context.Context) (map[string][]string, error) {
	out := map[string][]string{}
	err := s.each(ctx, func(rows *sql.Rows) error {
		var user, room string
		err := rows.Scan(text{&user}, text{&room})
		out[user] = append(out[user], room)
		return err
	}, `SELECT m.user_id, m.room FROM member m JOIN ghost g ON g.user_id = m.user_id ORDER BY m.room`)
	return out, doing(err, "reading the rooms of all ghosts")
}

// ForgetGhost forgets a user and its memberships in rooms.
func (tx *Tx) ForgetGhost(user string, rooms []string) error {
	for _, room := range rooms {
		if err := tx.SetMember(room, user, ""); err != nil {
			return err
		}
	}
	_, err := tx.exec(`DELETE FROM ghost WHERE user_id = $1`, toColumn(user))
	return doing(err, "forgetting the ghost %s", user)
}
