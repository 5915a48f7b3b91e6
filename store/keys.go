package store

import (
	"context"
	"database/sql"

	"maunium.net/go/mautrix/crypto/sql_store_upgrade"
)

// What is asked of the tables of mautrix's crypto store besides what that asks itself: see [Store.Foreign].

// keyTables are those tables, which hold secrets: they go with the store.
var keyTables = []string{
	sql_store_upgrade.VersionTableName, "crypto_account", "crypto_message_index", "crypto_tracked_user", "crypto_device", "crypto_olm_session",
	"crypto_olm_message_hash", "crypto_megolm_inbound_session", "crypto_megolm_outbound_session", "crypto_megolm_outbound_session_shared",
	"crypto_cross_signing_keys", "crypto_cross_signing_signatures", "crypto_secrets",
}

// ForgetDevices makes a user one whose devices are known, and has none until they are written.
func (tx *Tx) ForgetDevices(user string) error {
	_, err := tx.exec(`INSERT INTO crypto_tracked_user (user_id, devices_outdated) VALUES ($1, false)
		ON CONFLICT (user_id) DO UPDATE SET devices_outdated = excluded.devices_outdated`, user)
	if err == nil {
		_, err = tx.exec(`UPDATE crypto_device SET deleted = true WHERE user_id = $1`, user)
	}
	return doing(err, "forgetting the devices of %s", user)
}

// AnyKeyAccount gives the pickled account of any device; ErrNotFound when there is none.
func (s *Store) AnyKeyAccount(ctx context.Context) (pickled []byte, err error) {
	err = s.one(ctx, []any{&pickled}, `SELECT account FROM crypto_account LIMIT 1`)
	return pickled, doing(err, "reading an account of keys")
}

// EncryptedRoomsWith gives the encrypted rooms that a user is known to be in or invited to.
func (s *Store) EncryptedRoomsWith(ctx context.Context, user string) (rooms []string, err error) {
	err = s.each(ctx, func(row *sql.Rows) error {
		var room string
		err := row.Scan(text{&room})
		rooms = append(rooms, room)
		return err
	}, `SELECT m.room FROM member m JOIN room r ON r.room = m.room WHERE m.user_id = $1 AND m.membership IN ('join', 'invite') AND r.encrypted = 1`, toColumn(user))
	return rooms, doing(err, "reading the encrypted rooms of %s", user)
}
