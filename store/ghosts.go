package store

import (
	"context"
	"database/sql"
)

// PutGhost writes all that is known about a ghost.
func (tx *Tx) PutGhost(g *Ghost) error {
	_, err := tx.exec(`INSERT INTO ghost (user_id, registered, device_id, device_made, display_name, avatar_url, last_write)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id) DO UPDATE SET registered = excluded.registered,
		device_id = excluded.device_id, device_made = excluded.device_made, display_name = excluded.display_name,
		avatar_url = excluded.avatar_url, last_write = excluded.last_write`,
		toColumn(g.UserID), toFlag(g.Registered), toColumn(g.DeviceID), toFlag(g.DeviceMade), toColumn(g.DisplayName),
		toColumn(g.AvatarURL), toMillis(g.LastWrite))
	return doing(err, "writing ghost %s", g.UserID)
}

const ghostColumns = `SELECT user_id, registered, device_id, device_made, display_name, avatar_url, last_write FROM ghost `

func (g *Ghost) columns() []any {
	return []any{text{&g.UserID}, flag{&g.Registered}, text{&g.DeviceID}, flag{&g.DeviceMade}, text{&g.DisplayName},
		text{&g.AvatarURL}, moment{&g.LastWrite}}
}

// Ghost reads what is known about a ghost; ErrNotFound when nothing is.
func (s *Store) Ghost(ctx context.Context, userID string) (*Ghost, error) {
	var g Ghost
	if err := s.one(ctx, g.columns(), ghostColumns+`WHERE user_id = $1`, toColumn(userID)); err != nil {
		return nil, doing(err, "reading ghost %s", userID)
	}
	return &g, nil
}

// Ghosts gives all ghosts in the order of their user IDs.
func (s *Store) Ghosts(ctx context.Context, fn func(*Ghost) error) error {
	const page = 1000
	for after := ""; ; {
		var batch []Ghost
		err := s.each(ctx, func(rows *sql.Rows) error {
			var g Ghost
			err := rows.Scan(g.columns()...)
			batch = append(batch, g)
			return err
		}, ghostColumns+`WHERE user_id > $1 ORDER BY user_id LIMIT $2`, after, page)
		if err != nil {
			return doing(err, "reading the ghosts")
		}
		for i := range batch {
			if err = fn(&batch[i]); err != nil {
				return err
			}
			after = toColumn(batch[i].UserID)
		}
		if len(batch) < page {
			return nil
		}
	}
}
