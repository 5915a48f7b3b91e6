package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

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

// DeviceBefore is the ID under which a device is known as one that is gone, once another has taken its ID.
func DeviceBefore(device, signing string) string { return device + " before (" + signing + ")" }

// ReplaceDevice keeps what is known of a device with other keys under its [DeviceBefore]: somebody has logged in again under its ID, and what it wrote before is read
// yet. With another ed25519 key and the same curve25519 key it is not kept, for those go together.
func (tx *Tx) ReplaceDevice(user, device, identity, signing string) error {
	var before [2]string
	err := tx.row([]any{&before[0], &before[1]}, `SELECT identity_key, signing_key FROM crypto_device WHERE user_id = $1 AND device_id = $2 AND signing_key <> $3`, user, device, signing)
	switch {
	case errors.Is(err, ErrNotFound):
		err = nil
	case err == nil && before[0] == identity:
		_, err = tx.exec(`DELETE FROM crypto_device WHERE user_id = $1 AND device_id = $2`, user, device)
	case err == nil:
		gone := DeviceBefore(device, before[1])
		if _, err = tx.exec(`DELETE FROM crypto_device WHERE user_id = $1 AND device_id = $2`, user, gone); err == nil {
			_, err = tx.exec(`UPDATE crypto_device SET device_id = $3, deleted = true WHERE user_id = $1 AND device_id = $2`, user, device, gone)
		}
	}
	if err == nil { // it may have come back
		_, err = tx.exec(`DELETE FROM crypto_device WHERE user_id = $1 AND device_id = $2`, user, DeviceBefore(device, signing))
	}
	return doing(err, "keeping what device %s of %s was", device, user)
}

// DevicesUnknown makes users ones whose devices are to be asked for again, whether or not they were known before.
func (tx *Tx) DevicesUnknown(users ...string) error {
	for _, user := range users {
		_, err := tx.exec(`INSERT INTO crypto_tracked_user (user_id, devices_outdated) VALUES ($1, true)
			ON CONFLICT (user_id) DO UPDATE SET devices_outdated = excluded.devices_outdated`, toColumn(user))
		if err != nil {
			return doing(err, "marking the devices of %s as unknown", user)
		}
	}
	return nil
}

// AnyKeyAccount gives the pickled account of any device; ErrNotFound when there is none.
func (s *Store) AnyKeyAccount(ctx context.Context) (pickled []byte, err error) {
	return s.read.anyKeyAccount(ctx)
}

// AnyKeyAccount is [Store.AnyKeyAccount].
func (v *Visitor) AnyKeyAccount(ctx context.Context) (pickled []byte, err error) {
	pickled, err = v.read.anyKeyAccount(ctx)
	return pickled, v.telling(err)
}

func (r *reader) anyKeyAccount(ctx context.Context) (pickled []byte, err error) {
	err = r.one(ctx, []any{&pickled}, `SELECT account FROM crypto_account LIMIT 1`)
	return pickled, doing(err, "reading an account of keys")
}

// MasterKey gives what is known of a user's cross-signing master key; ErrNotFound when nothing is.
func (v *Visitor) MasterKey(ctx context.Context, user string) (key string, err error) {
	err = v.read.one(ctx, []any{&key}, `SELECT key FROM crypto_cross_signing_keys WHERE user_id = $1 AND usage = 'master'`, toColumn(user))
	return key, v.telling(doing(err, "reading the cross-signing key of %s", user))
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

// OutdateDevices marks the devices of users as ones to be asked for again before a key is given to them. Users whose devices nobody has asked for are
// left alone.
func (tx *Tx) OutdateDevices(users ...string) error {
	for _, user := range users {
		tx.w.store.marks.mark(user)
		if _, err := tx.exec(`UPDATE crypto_tracked_user SET devices_outdated = true WHERE user_id = $1`, toColumn(user)); err != nil {
			return doing(err, "marking the devices of %s as outdated", user)
		}
	}
	return nil
}

// KeepDevicesOutdated leaves the devices of a user outdated, where they were marked as such after a [Store.DeviceMarks] and an answer comes that was asked
// for before. It is no new mark: with that, the answers that others wait for would mark them in turn, for ever.
func (tx *Tx) KeepDevicesOutdated(user string, mark uint64) error {
	if !tx.w.store.marks.since(user, mark) {
		return nil
	}
	_, err := tx.exec(`UPDATE crypto_tracked_user SET devices_outdated = true WHERE user_id = $1`, toColumn(user))
	return doing(err, "leaving the devices of %s outdated", user)
}

// OutdateAllDevices is OutdateDevices for all users: what the homeserver told may have been lost.
func (tx *Tx) OutdateAllDevices() error {
	tx.w.store.marks.markAll()
	_, err := tx.exec(`UPDATE crypto_tracked_user SET devices_outdated = true WHERE devices_outdated <> true`)
	return doing(err, "marking the devices of all users as outdated")
}

// DropRoomKeys makes all devices of the bridge take a new key for what they send into a room next.
func (tx *Tx) DropRoomKeys(room string) error {
	tx.markDrop(func(drops *marks) { drops.mark(room) })
	_, err := tx.exec(`DELETE FROM crypto_megolm_outbound_session WHERE room_id = $1`, toColumn(room))
	return doing(err, "dropping the keys of room %s", room)
}

// DropAllRoomKeys is DropRoomKeys for all rooms.
func (tx *Tx) DropAllRoomKeys() error {
	tx.markDrop((*marks).markAll)
	_, err := tx.exec(`DELETE FROM crypto_megolm_outbound_session`)
	return doing(err, "dropping the keys of all rooms")
}

// RoomKeyWithheldBy notes of a room key that will not come who has said so.
func (tx *Tx) RoomKeyWithheldBy(account, session, user string) error {
	_, err := tx.exec(`UPDATE crypto_megolm_inbound_session SET source_user = $3 WHERE account_id = $1 AND session_id = $2 AND session IS NULL AND source_user = ''`,
		account, session, user)
	return doing(err, "noting who withholds a room key")
}

// DeleteUnreadKeys deletes the room keys that a device of the bridge has of a user and that have opened no message yet, but the newest, those for which
// messages wait, and what he has said of keys that will not come.
func (tx *Tx) DeleteUnreadKeys(account, sender string, keep int) error {
	_, err := tx.exec(`DELETE FROM crypto_megolm_inbound_session WHERE account_id = $1 AND session_id IN
		(SELECT s.session_id FROM crypto_megolm_inbound_session s WHERE s.account_id = $1 AND s.source_user = $2 AND NOT EXISTS
			(SELECT 1 FROM message_read r WHERE r.session = s.session_id) AND NOT EXISTS
			(SELECT 1 FROM crypto_message_index i WHERE i.session_id = s.session_id) AND NOT EXISTS
			(SELECT 1 FROM parked p WHERE p.room = s.room_id AND p.session = s.session_id) ORDER BY s.received_at DESC, s.session_id LIMIT $4 OFFSET $3)`,
		account, sender, keep, pruneBatch)
	return doing(err, "deleting room keys of %s that have opened nothing", sender)
}

// OlmSessionBegun notes an Olm session that a user has begun with a device of the bridge, from a key of which it is not known that it is one of his devices'.
func (tx *Tx) OlmSessionBegun(account, user, session string) error {
	_, err := tx.exec(`INSERT INTO olm_begun (account, user_id, session) VALUES ($1, $2, $3)`, account, user, session)
	return doing(err, "noting an Olm session of %s", user)
}

// OlmSessionReturned notes an Olm session that is stored once more after it was deleted. With a key of which no device is known any more it goes as those do that somebody
// has begun: when nobody has used it for long.
func (tx *Tx) OlmSessionReturned(account, key, session string) error {
	_, err := tx.exec(`INSERT INTO olm_begun (account, user_id, session) SELECT s.account_id, '', s.session_id FROM crypto_olm_session s
		WHERE s.account_id = $1 AND s.session_id = $2 AND NOT EXISTS (SELECT 1 FROM crypto_device d WHERE d.identity_key = $3)
		AND NOT EXISTS (SELECT 1 FROM olm_begun b WHERE b.account = s.account_id AND b.session = s.session_id)`, account, session, key)
	return doing(err, "noting an Olm session that was deleted and is used")
}

// DeleteOlmSessionsBegun deletes the Olm sessions that a user has begun, but the newest, and those with what is known by now to be a device of his.
func (tx *Tx) DeleteOlmSessionsBegun(account, user string, keep int) error {
	_, err := tx.exec(`DELETE FROM crypto_olm_session WHERE account_id = $1 AND session_id IN
		(SELECT b.session FROM olm_begun b WHERE b.account = $1 AND b.user_id = $2 ORDER BY b.id DESC LIMIT $4 OFFSET $3)
		AND sender_key NOT IN (SELECT identity_key FROM crypto_device WHERE user_id = $2 AND deleted = false)`, account, user, keep, pruneBatch)
	if err == nil {
		_, err = tx.exec(`DELETE FROM olm_begun WHERE id IN (SELECT id FROM olm_begun WHERE account = $1 AND user_id = $2 ORDER BY id DESC LIMIT $4 OFFSET $3)`,
			account, user, keep, pruneBatch)
	}
	return doing(err, "deleting Olm sessions that %s has begun", user)
}

// RetireOlmSessions makes all Olm sessions of the bridge's devices ones that [IsRetired].
func (tx *Tx) RetireOlmSessions() error {
	_, err := tx.exec(`UPDATE crypto_olm_session SET created_at = $1, last_decrypted = $1`, time.Unix(0, 0).UTC())
	return doing(err, "retiring the Olm sessions")
}

// IsRetired says of an Olm session, by the time at which it was made, that nothing may be encrypted with it any more.
func IsRetired(made time.Time) bool { return made.Before(time.Unix(0, 0).Add(48 * time.Hour)) }

// DropRoomKeysUnless is DropRoomKeys when a user's membership may change who reads in the room: who comes needs a key, and who has left must not have the
// next. Who is invited may have none yet (it depends on the room's history visibility), and so needs one when he joins. It is called before the new membership is
// remembered.
func (tx *Tx) DropRoomKeysUnless(room, user, membership string) error {
	var before string
	err := tx.row([]any{text{&before}}, `SELECT membership FROM member WHERE room = $1 AND user_id = $2`, toColumn(room), toColumn(user))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return doing(err, "reading the membership of %s in %s", user, room)
	}
	reads := func(membership string) bool { return membership == "join" || membership == "invite" }
	if err == nil && (before == membership || !reads(before) && !reads(membership)) {
		return nil
	}
	return tx.DropRoomKeys(room)
}

// dropAtOnce is for how many users the room keys are looked through at once.
const dropAtOnce = 16

// DropKeysSharedWith is DropRoomKeys for all rooms that one of the users is known to be in or invited to: their devices have changed.
func (tx *Tx) DropKeysSharedWith(users ...string) error {
	for _, user := range users {
		tx.markDrop(func(drops *marks) { drops.mark(user) })
	}
	for some := range slices.Chunk(users, dropAtOnce) {
		args := make([]any, dropAtOnce)
		for n := range args {
			args[n] = toColumn(some[min(n, len(some)-1)])
		}
		_, err := tx.exec(`DELETE FROM crypto_megolm_outbound_session WHERE EXISTS (SELECT 1 FROM member WHERE room = room_id AND membership IN ('join', 'invite')
			AND user_id IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16))`, args...)
		if err != nil {
			return doing(err, "dropping the keys of the rooms of %s", strings.Join(some, ", "))
		}
	}
	return nil
}

// OutdatedMembers gives who of a room's members and of those invited is among [Store.OutdatedUsers]: most of the time nobody, whatever their number elsewhere.
func (s *Store) OutdatedMembers(ctx context.Context, room string) (users []string, err error) {
	return outdatedMembers(room, func(scan func(row *sql.Rows) error, query string, args ...any) error {
		return s.each(ctx, scan, query, args...)
	})
}

// OutdatedMembers is [Store.OutdatedMembers] with what the jobs before have marked, in the same commit as well.
func (tx *Tx) OutdatedMembers(room string) (users []string, err error) {
	return outdatedMembers(room, tx.each)
}

func outdatedMembers(room string, each func(scan func(row *sql.Rows) error, query string, args ...any) error) (users []string, err error) {
	err = each(func(row *sql.Rows) error {
		var user string
		err := row.Scan(text{&user})
		users = append(users, user)
		return err
	}, `SELECT t.user_id FROM member m JOIN crypto_tracked_user t ON t.user_id = m.user_id
		WHERE m.room = $1 AND m.membership IN ('join', 'invite') AND t.devices_outdated = true`, toColumn(room))
	return users, doing(err, "reading whose devices are outdated in room %s", room)
}

// OutdatedUsers gives the users whose devices are to be asked for again. There is an index of them: it costs next to nothing when there are none.
func (s *Store) OutdatedUsers(ctx context.Context) (users []string, err error) {
	err = s.each(ctx, func(row *sql.Rows) error {
		var user string
		err := row.Scan(text{&user})
		users = append(users, user)
		return err
	}, `SELECT user_id FROM crypto_tracked_user WHERE devices_outdated = true`)
	return users, doing(err, "reading whose devices are outdated")
}
