package store

import (
	"context"
	"database/sql"
	"time"
)

// PutMessage writes a link between a remote message's part and an event. Writing the same (Channel, RemoteID, Part) again
// replaces what was there.
func (tx *Tx) PutMessage(m *Message) error {
	if m.At.IsZero() {
		m.At = tx.w.store.opts.Now()
	}
	_, err := tx.exec(`INSERT INTO message (channel, remote_id, part, event, room, sender, from_matrix, happened)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (channel, remote_id, part) DO UPDATE SET event = excluded.event,
		room = excluded.room, sender = excluded.sender, from_matrix = excluded.from_matrix, happened = excluded.happened`,
		toColumn(m.Channel), toColumn(m.RemoteID), m.Part, toColumn(m.Event), toColumn(m.Room), toColumn(m.Sender),
		toFlag(m.FromMatrix), toMillis(m.At))
	return doing(err, "linking message %q of %q with %s", m.RemoteID, m.Channel, m.Event)
}

const messageColumns = `SELECT channel, remote_id, part, event, room, sender, from_matrix, happened FROM message `

func (s *Store) messages(ctx context.Context, query string, args ...any) ([]Message, error) {
	var out []Message
	err := s.each(ctx, func(rows *sql.Rows) error {
		var m Message
		err := rows.Scan(text{&m.Channel}, text{&m.RemoteID}, &m.Part, text{&m.Event}, text{&m.Room}, text{&m.Sender},
			flag{&m.FromMatrix}, moment{&m.At})
		out = append(out, m)
		return err
	}, query, args...)
	return out, err
}

// MessagesByRemote gives the parts of a remote message in order; none is no error.
func (s *Store) MessagesByRemote(ctx context.Context, channel, remoteID string) ([]Message, error) {
	out, err := s.messages(ctx, messageColumns+`WHERE channel = $1 AND remote_id = $2 ORDER BY part`, toColumn(channel), toColumn(remoteID))
	return out, doing(err, "looking up message %q of %q", remoteID, channel)
}

// NewestRemote says when the newest message that came from a channel happened; the zero time when there is none.
func (s *Store) NewestRemote(ctx context.Context, channel string) (at time.Time, err error) {
	err = s.one(ctx, []any{moment{&at}}, `SELECT COALESCE(MAX(happened), 0) FROM message WHERE channel = $1 AND from_matrix = 0`, toColumn(channel))
	return at, doing(err, "looking up the newest message of %q", channel)
}

// NewestOutgoing reads the last row of a lane that has this operation; ErrNotFound when there is none.
func (s *Store) NewestOutgoing(ctx context.Context, lane, op string) (*Outgoing, error) {
	var id int64
	err := s.one(ctx, []any{&id}, `SELECT id FROM outbox WHERE lane = $1 AND op = $2 ORDER BY id DESC LIMIT 1`, toColumn(lane), toColumn(op))
	if err != nil {
		return nil, doing(err, "reading the last %s of lane %q", op, lane)
	}
	return s.Outgoing(ctx, id)
}

// MessagesByEvent gives the remote messages that belong to an event, by channel and then in the order of their parts, each of
// which may have a remote ID of its own; none is no error.
func (s *Store) MessagesByEvent(ctx context.Context, event string) ([]Message, error) {
	out, err := s.messages(ctx, messageColumns+`WHERE event = $1 ORDER BY channel, part, remote_id`, toColumn(event))
	return out, doing(err, "looking up the messages of event %s", event)
}
