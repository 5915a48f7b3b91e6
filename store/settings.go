package store

import "context"

// PutSetting writes a value of the process's own under a key; nil deletes it.
func (tx *Tx) PutSetting(key string, value []byte) error {
	var err error
	if value == nil {
		_, err = tx.exec(`DELETE FROM setting WHERE key = $1`, toColumn(key))
	} else {
		_, err = tx.exec(`INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, toColumn(key), value)
	}
	return doing(err, "writing setting %q", key)
}

// Setting reads a value; ErrNotFound when there is none.
func (s *Store) Setting(ctx context.Context, key string) ([]byte, error) {
	return s.read.setting(ctx, key)
}

// Setting is [Store.Setting].
func (v *Visitor) Setting(ctx context.Context, key string) ([]byte, error) {
	value, err := v.read.setting(ctx, key)
	return value, v.telling(err)
}

func (r *reader) setting(ctx context.Context, key string) ([]byte, error) {
	var value []byte
	if err := r.one(ctx, []any{blob{&value}}, `SELECT value FROM setting WHERE key = $1`, toColumn(key)); err != nil {
		return nil, doing(err, "reading setting %q", key)
	}
	return value, nil
}
