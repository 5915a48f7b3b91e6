package store

import (
	"context"
	"errors"
)

// AddMedia writes what a short link stands for and sets its ID. A link to the same media in the same event that is still
// good is taken instead, with its expiry: a message that is tried again keeps its link.
func (tx *Tx) AddMedia(m *Media) error {
	if m.Created.IsZero() {
		m.Created = tx.w.store.opts.Now()
	}
	err := ErrNotFound
	if m.Event != "" {
		err = tx.row([]any{&m.ID, moment{&m.Created}, moment{&m.Expires}}, `SELECT id, created, expires FROM media
			WHERE room = $1 AND event = $2 AND server = $3 AND media_id = $4 AND name = $5 AND mime = $6 AND revoked = 0 AND (expires = 0 OR expires > $7)
			ORDER BY id DESC LIMIT 1`,
			toColumn(m.Room), toColumn(m.Event), toColumn(m.Server), toColumn(m.MediaID), toColumn(m.Name), toColumn(m.MIME), toMillis(m.Created))
	}
	if !errors.Is(err, ErrNotFound) {
		return doing(err, "looking for the link to mxc://%s/%s", m.Server, m.MediaID)
	}
	err = tx.row([]any{&m.ID}, `INSERT INTO media (server, media_id, room, event, name, mime, size, created, expires, revoked, info)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id`,
		toColumn(m.Server), toColumn(m.MediaID), toColumn(m.Room), toColumn(m.Event), toColumn(m.Name), toColumn(m.MIME), m.Size,
		toMillis(m.Created), toMillis(m.Expires), toMillis(m.Revoked), toBlob(m.Info))
	return doing(err, "writing the link to mxc://%s/%s", m.Server, m.MediaID)
}

// Media reads what a short link stands for; ErrNotFound when its record is gone. Expires and Revoked are for the caller
// to judge.
func (s *Store) Media(ctx context.Context, id int64) (*Media, error) {
	var m Media
	err := s.one(ctx, []any{&m.ID, text{&m.Server}, text{&m.MediaID}, text{&m.Room}, text{&m.Event}, text{&m.Name}, text{&m.MIME},
		&m.Size, moment{&m.Created}, moment{&m.Expires}, moment{&m.Revoked}, blob{&m.Info}},
		`SELECT id, server, media_id, room, event, name, mime, size, created, expires, revoked, info FROM media WHERE id = $1`, id)
	if err != nil {
		return nil, doing(err, "reading media record %d", id)
	}
	return &m, nil
}

// RevokeMedia ends all links of an event, now, and gives their number.
func (tx *Tx) RevokeMedia(room, event string) (n int64, err error) {
	n, err = tx.exec(`UPDATE media SET revoked = $3 WHERE room = $1 AND event = $2 AND revoked = 0`,
		toColumn(room), toColumn(event), toMillis(tx.w.store.opts.Now()))
	return n, doing(err, "revoking the links of event %s", event)
}
