package store

import (
	"context"
	"errors"
)

// A room is known once its state was read as a whole. What events say of it while it is being read, and afterwards, is
// newer than what was read, and holds.

const (
	beingRead = "0"
	wasRead   = "1"
)

// BeginRoom forgets what is known of a room but whether it is encrypted: it is about to be read. The members of keep are
// left as they are given.
func (tx *Tx) BeginRoom(room string, keep map[string]string) error {
	for _, statement := range []string{`DELETE FROM room_state WHERE room = $1`, `DELETE FROM member WHERE room = $1`} {
		if _, err := tx.room(room, statement); err != nil {
			return doing(err, "forgetting room %s", room)
		}
	}
	// Who came and left while the room was not known was not told: its keys are not used again.
	if err := tx.DropRoomKeys(room); err != nil {
		return err
	}
	for user, membership := range keep {
		if err := tx.SetMember(room, user, membership); err != nil {
			return err
		}
	}
	_, err := tx.exec(`INSERT INTO room_state (room, type, content) VALUES ($1, '', $2)`, toColumn(room), []byte(beingRead))
	return doing(err, "beginning to read room %s", room)
}

// ReadRoom takes in a part of what was read of a room: memberships by user, and pieces of state by type. What events have
// said since BeginRoom stays. With the last part the room is known.
func (tx *Tx) ReadRoom(room string, members map[string]string, state map[string][]byte, last bool) error {
	for user, membership := range members {
		_, err := tx.room(room, `INSERT INTO member (room, user_id, membership) VALUES ($1, $2, $3) ON CONFLICT (room, user_id) DO NOTHING`,
			toColumn(user), toColumn(membership))
		if err != nil {
			return doing(err, "taking in the members of room %s", room)
		}
	}
	for typ, content := range state {
		_, err := tx.exec(`INSERT INTO room_state (room, type, content) VALUES ($1, $2, $3) ON CONFLICT (room, type) DO NOTHING`,
			toColumn(room), toColumn(typ), content)
		if err != nil {
			return doing(err, "taking in the state of room %s", room)
		}
	}
	if !last {
		return nil
	}
	_, err := tx.exec(`UPDATE room_state SET content = $2 WHERE room = $1 AND type = ''`, toColumn(room), []byte(wasRead))
	return doing(err, "ending to read room %s", room)
}

// SetRoomState takes in a piece of state, if the room is known or being read.
func (tx *Tx) SetRoomState(room, typ string, content []byte) error {
	_, err := tx.exec(`INSERT INTO room_state (room, type, content) SELECT room, $2, $3 FROM room_state WHERE room = $1 AND type = ''
		ON CONFLICT (room, type) DO UPDATE SET content = excluded.content`, toColumn(room), toColumn(typ), content)
	return doing(err, "remembering %s of room %s", typ, room)
}

// SetRoomMember is SetMember, if the room is known or being read.
func (tx *Tx) SetRoomMember(room, user, membership string) error {
	_, err := tx.room(room, `INSERT INTO member (room, user_id, membership) SELECT room, $2, $3 FROM room_state WHERE room = $1 AND type = ''
		ON CONFLICT (room, user_id) DO UPDATE SET membership = excluded.membership`, toColumn(user), toColumn(membership))
	return doing(err, "remembering the membership of %s in %s", user, room)
}

// LeaveRoom makes a room one that is not known, unless this user, of whom events come, is still in it. Of its members only
// ghosts are kept: who else comes and goes is not told any more. So the next key that is used there is one for those who are in it then.
func (tx *Tx) LeaveRoom(room, unless string) error {
	known, err := tx.exec(`DELETE FROM room_state WHERE room = $1 AND NOT EXISTS
		(SELECT 1 FROM member WHERE room = $1 AND user_id = $2 AND membership = 'join')`, toColumn(room), toColumn(unless))
	if err == nil && known > 0 {
		if err = tx.DropRoomKeys(room); err != nil {
			return err
		}
		_, err = tx.room(room, `DELETE FROM member WHERE room = $1 AND NOT EXISTS (SELECT 1 FROM ghost WHERE ghost.user_id = member.user_id)`)
	}
	return doing(err, "forgetting the state of room %s", room)
}

// KnowsRoom says whether a room's state was read, and is kept since.
func (s *Store) KnowsRoom(ctx context.Context, room string) (bool, error) {
	content, err := s.RoomState(ctx, room, "")
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return string(content) == wasRead, err
}

// RoomState gives a piece of a room's state; ErrNotFound when the room, or the piece, is not known.
func (s *Store) RoomState(ctx context.Context, room, typ string) (content []byte, err error) {
	err = s.one(ctx, []any{&content}, `SELECT content FROM room_state WHERE room = $1 AND type = $2`, toColumn(room), toColumn(typ))
	return content, doing(err, "reading %s of room %s", typ, room)
}
