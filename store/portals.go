package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// PutPortal writes a portal. A channel whose portal has no room yet gets one by this; a channel that has another room, and
// a room that carries another channel, are ErrTaken with a text that names the other: delete that portal first.
func (tx *Tx) PutPortal(p *Portal) error {
	channel, room := toColumn(p.Channel), toColumn(p.Room)
	var other string
	err := tx.row([]any{text{&other}}, `SELECT room FROM portal WHERE channel = $1`, channel)
	switch {
	case err == nil && other != "" && other != p.Room:
		return fmt.Errorf("channel %q has room %s already: %w", p.Channel, other, ErrTaken)
	case err != nil && !errors.Is(err, ErrNotFound):
		return doing(err, "writing portal %q", p.Channel)
	}
	if p.Room != "" {
		err = tx.row([]any{text{&other}}, `SELECT channel FROM portal WHERE room = $1 AND channel <> $2`, room, channel)
		if err == nil {
			return fmt.Errorf("room %s carries channel %q already: %w", p.Room, other, ErrTaken)
		} else if !errors.Is(err, ErrNotFound) {
			return doing(err, "writing portal %q", p.Channel)
		}
	}
	if p.Created.IsZero() {
		p.Created = tx.w.store.opts.Now()
	}
	_, err = tx.exec(`INSERT INTO portal (channel, room, source, topic, name, created) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (channel) DO UPDATE SET room = excluded.room, source = excluded.source, topic = excluded.topic, name = excluded.name`,
		channel, room, toColumn(p.Source), toColumn(p.Topic), toColumn(p.Name), toMillis(p.Created))
	return doing(err, "writing portal %q", p.Channel)
}

// DeletePortal forgets a channel's portal; ErrNotFound when it has none.
func (tx *Tx) DeletePortal(channel string) error {
	return doing(changed(tx.exec(`DELETE FROM portal WHERE channel = $1`, toColumn(channel))), "deleting portal %q", channel)
}

// Portals gives all portals in the order of their channels.
func (s *Store) Portals(ctx context.Context) ([]Portal, error) {
	var out []Portal
	err := s.each(ctx, func(rows *sql.Rows) error {
		var p Portal
		err := rows.Scan(text{&p.Channel}, text{&p.Room}, text{&p.Source}, text{&p.Topic}, text{&p.Name}, moment{&p.Created})
		out = append(out, p)
		return err
	}, `SELECT channel, room, source, topic, name, created FROM portal ORDER BY channel`)
	return out, doing(err, "reading the portals")
}
