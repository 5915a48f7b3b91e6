package store

import (
	"context"
	"database/sql"
	"errors"
)

// SetEncrypted remembers whether a room is encrypted. A room that was once encrypted stays so: encryption cannot be
// switched off in Matrix, and a state event that claims so must not bring plaintext into the room.
func (tx *Tx) SetEncrypted(room string, encrypted bool) error {
	_, err := tx.room(room, `INSERT INTO room (room, encrypted) VALUES ($1, $2)
		ON CONFLICT (room) DO UPDATE SET encrypted = 1 WHERE room.encrypted = 0 AND excluded.encrypted = 1`, toFlag(encrypted))
	return doing(err, "marking room %s as encrypted", room)
}

// Encrypted says whether a room is encrypted, as far as is known.
func (s *Store) Encrypted(ctx context.Context, room string) (encrypted, known bool, err error) {
	e, remembered, asked := s.rooms.encryption(room)
	if remembered {
		return e.encrypted, e.known, nil
	}
	err = s.one(ctx, []any{flag{&e.encrypted}}, `SELECT encrypted FROM room WHERE room = $1`, toColumn(room))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, false, doing(err, "reading whether room %s is encrypted", room)
	}
	e.known = err == nil
	s.rooms.keepEncryption(asked, room, e)
	return e.encrypted, e.known, nil
}

// room runs a statement that changes what is known of a room, which is its first argument. Every change of the tables room and member comes through
// here, so that [Store.Encrypted] and [Store.Member] do not answer with what was.
func (tx *Tx) room(room, query string, args ...any) (rows int64, err error) {
	tx.w.store.rooms.change(room)
	return tx.exec(query, append([]any{toColumn(room)}, args...)...)
}

// SetNoticed remembers that something was said in a room, so that it is said once. fresh is true the first time.
func (tx *Tx) SetNoticed(room, what string) (fresh bool, err error) {
	n, err := tx.exec(`INSERT INTO noticed (room, what) VALUES ($1, $2) ON CONFLICT (room, what) DO NOTHING`, toColumn(room), toColumn(what))
	return n > 0, doing(err, "remembering the notice %q in room %s", what, room)
}

// ForgetNotices makes it be said once more in every room.
func (tx *Tx) ForgetNotices(what string) error {
	_, err := tx.exec(`DELETE FROM noticed WHERE what = $1`, toColumn(what))
	return doing(err, "forgetting the notices %q", what)
}

// SetMember remembers a user's membership in a room: "join", "invite", "leave", "ban", "knock". The empty membership
// forgets the user.
func (tx *Tx) SetMember(room, user, membership string) error {
	var err error
	if membership == "" {
		_, err = tx.room(room, `DELETE FROM member WHERE room = $1 AND user_id = $2`, toColumn(user))
	} else {
		_, err = tx.room(room, `INSERT INTO member (room, user_id, membership) VALUES ($1, $2, $3)
			ON CONFLICT (room, user_id) DO UPDATE SET membership = excluded.membership WHERE member.membership <> excluded.membership`,
			toColumn(user), toColumn(membership))
	}
	return doing(err, "remembering the membership of %s in %s", user, room)
}

// SetOutside is SetMember for an invitation or a knock. Of who is in the room it is older than the coming: it takes nobody out.
func (tx *Tx) SetOutside(room, user, membership string) error {
	_, err := tx.room(room, `INSERT INTO member (room, user_id, membership) VALUES ($1, $2, $3)
		ON CONFLICT (room, user_id) DO UPDATE SET membership = excluded.membership WHERE member.membership <> 'join'`, toColumn(user), toColumn(membership))
	return doing(err, "remembering the membership of %s in %s", user, room)
}

// Member gives a user's membership in a room; empty when it is not known.
func (s *Store) Member(ctx context.Context, room, user string) (string, error) {
	membership, remembered, asked := s.rooms.member(room, user)
	if remembered {
		return membership, nil
	}
	err := s.one(ctx, []any{text{&membership}}, `SELECT membership FROM member WHERE room = $1 AND user_id = $2`, toColumn(room), toColumn(user))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", doing(err, "reading the membership of %s in %s", user, room)
	}
	s.rooms.keepMember(asked, room, user, membership)
	return membership, nil
}

// Members gives the known memberships of a room by user.
func (s *Store) Members(ctx context.Context, room string) (map[string]string, error) {
	out := map[string]string{}
	err := s.each(ctx, func(rows *sql.Rows) error {
		var user, membership string
		err := rows.Scan(text{&user}, text{&membership})
		out[user] = membership
		return err
	}, `SELECT user_id, membership FROM member WHERE room = $1`, toColumn(room))
	return out, doing(err, "reading the members of %s", room)
}
