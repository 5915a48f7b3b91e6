package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// AddMediaKey writes a signing key under a free ID and sets that. There is one signing key at a time: while there is one,
// adding another is ErrTaken, so that of two who make the first key at once one fails, and reads the other's with
// [Store.MediaKeys]. To change the key, retire the old one and add the new one in the same job.
func (tx MediaTx) AddMediaKey(k *MediaKey) error {
	var signing int64
	err := tx.db.row([]any{&signing}, `SELECT id FROM media_key WHERE retired = 0`)
	if err == nil {
		return fmt.Errorf("adding a media key: key %d signs: %w", signing, ErrTaken)
	} else if !errors.Is(err, ErrNotFound) {
		return doing(err, "adding a media key")
	}
	var id int64
	// The IDs go round: the one after the newest, so that an old link is never checked with a new key soon.
	err = tx.db.row([]any{&id}, `SELECT COALESCE((SELECT id FROM media_key ORDER BY created DESC, id DESC LIMIT 1), 0)`)
	if err != nil {
		return doing(err, "adding a media key")
	}
	if k.Created.IsZero() {
		k.Created = tx.db.now()
	}
	for range 255 {
		id = id%255 + 1
		var there int64
		if err = tx.db.row([]any{&there}, `SELECT COUNT(*) FROM media_key WHERE id = $1`, id); err != nil {
			return doing(err, "adding a media key")
		}
		if there > 0 {
			continue
		}
		// Another process may add one at the same time: the database lets one of the two in.
		n, err := tx.db.exec(`INSERT INTO media_key (id, secret, created, retired) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			id, toBlob(k.Secret), toMillis(k.Created), toMillis(k.Retired))
		if err == nil && n == 0 {
			err = ErrTaken
		}
		if err == nil {
			k.ID = uint8(id)
		}
		return doing(err, "adding media key %d", id)
	}
	return fmt.Errorf("adding a media key: all 255 IDs: %w", ErrTaken)
}

// RetireMediaKey ends the signing with a key; what it signed can still be checked. ErrNotFound when it does not sign.
func (tx MediaTx) RetireMediaKey(id uint8) error {
	n, err := tx.db.exec(`UPDATE media_key SET retired = $2 WHERE id = $1 AND retired = 0`, int64(id), toMillis(tx.db.now()))
	return doing(changed(n, err), "retiring media key %d", id)
}

// KillMediaKey ends a key and all links that it signed. ErrNotFound when it is dead, or not there.
func (tx MediaTx) KillMediaKey(id uint8) error {
	now := toMillis(tx.db.now())
	n, err := tx.db.exec(`UPDATE media_key SET dead = $2, retired = CASE WHEN retired = 0 THEN $2 ELSE retired END WHERE id = $1 AND dead = 0`, int64(id), now)
	return doing(changed(n, err), "ending media key %d", id)
}

// MediaKeys gives all keys, the oldest first.
func (s *Store) MediaKeys(ctx context.Context) ([]MediaKey, error) { return s.read.mediaKeys(ctx) }

func (r *reader) mediaKeys(ctx context.Context) ([]MediaKey, error) {
	var out []MediaKey
	err := r.each(ctx, func(rows *sql.Rows) error {
		var k MediaKey
		err := rows.Scan(&k.ID, blob{&k.Secret}, moment{&k.Created}, moment{&k.Retired}, moment{&k.Dead})
		out = append(out, k)
		return err
	}, `SELECT id, secret, created, retired, dead FROM media_key ORDER BY created, id`)
	return out, doing(err, "reading the media keys")
}
