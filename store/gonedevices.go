package store

import (
	"context"
	"database/sql"
	"time"
)

// DeleteGoneDevices deletes what is known of a user's devices that are gone, but those whose room keys came last, and with each the Olm sessions that he has begun from
// it and what was signed of it. It is for users who are none of the bridge's.
func (tx *Tx) DeleteGoneDevices(user string, keep int) error {
	var many int
	err := tx.row([]any{&many}, `SELECT COUNT(*) FROM crypto_device WHERE user_id = $1 AND deleted = true`, user)
	if err != nil || many <= keep { // as with most users, and what follows looks at their room keys
		return doing(err, "counting devices of %s that are gone", user)
	}
	var gone [][2]string
	err = tx.each(func(row *sql.Rows) error {
		var device [2]string
		err := row.Scan(&device[0], &device[1])
		gone = append(gone, device)
		return err
	}, `SELECT device_id, identity_key FROM crypto_device d WHERE user_id = $1 AND deleted = true
		ORDER BY (SELECT MAX(s.received_at) FROM crypto_megolm_inbound_session s WHERE s.sender_key = d.identity_key) DESC NULLS LAST, device_id LIMIT $3 OFFSET $2`,
		user, keep, pruneBatch)
	if err != nil || len(gone) == 0 {
		return doing(err, "looking for devices of %s that are gone", user)
	}
	return doing(tx.forgetDevices(user, gone), "forgetting devices of %s that are gone", user)
}

// forgetDevices deletes devices, by ID and curve25519 key, and the sessions that their user has begun from them, unless others have that key as well. Anybody can say of
// a key that it is his device's: of another session it is not known whose it is, and it goes when nobody has used it for long, see pruneOlmSessions.
func (tx *Tx) forgetDevices(user string, devices [][2]string) error {
	const nobodyHasIt = `NOT EXISTS (SELECT 1 FROM crypto_device d WHERE d.identity_key = $1)`
	for _, device := range devices {
		_, err := tx.exec(`DELETE FROM crypto_device WHERE user_id = $1 AND device_id = $2`, user, device[0])
		if err == nil {
			_, err = tx.exec(`DELETE FROM crypto_olm_session WHERE sender_key = $1 AND `+nobodyHasIt+` AND EXISTS
				(SELECT 1 FROM olm_begun b WHERE b.account = crypto_olm_session.account_id AND b.session = crypto_olm_session.session_id AND b.user_id = $2)`, device[1], user)
		}
		if err == nil {
			_, err = tx.exec(`INSERT INTO olm_begun (account, user_id, session) SELECT s.account_id, '', s.session_id FROM crypto_olm_session s WHERE s.sender_key = $1
				AND `+nobodyHasIt+` AND NOT EXISTS (SELECT 1 FROM olm_begun b WHERE b.account = s.account_id AND b.session = s.session_id)`, device[1])
		}
		if err != nil {
			return err
		}
	}
	_, err := tx.exec(`DELETE FROM crypto_cross_signing_signatures WHERE signed_user_id = $1 AND signed_key NOT IN (SELECT signing_key FROM crypto_device WHERE user_id = $1)
		AND signed_key NOT IN (SELECT key FROM crypto_cross_signing_keys WHERE user_id = $1)`, user)
	return err
}

// ForgetSignatures forgets who of a user's keys has signed one of them, but itself and his cross-signing keys: others take the place of those.
func (tx *Tx) ForgetSignatures(user, signed string) error {
	_, err := tx.exec(`DELETE FROM crypto_cross_signing_signatures WHERE signed_user_id = $1 AND signed_key = $2 AND signer_user_id = $1 AND signer_key <> $2
		AND signer_key NOT IN (SELECT key FROM crypto_cross_signing_keys WHERE user_id = $1)`, user, signed)
	return doing(err, "forgetting signatures of a key of %s", user)
}

// unneeded is a user t with whom the bridge shares no room and of whom it has no room key. Each is looked for by its user: NOT IN would have PostgreSQL read the whole of
// a large table for each.
const unneeded = `NOT EXISTS (SELECT 1 FROM member m WHERE m.user_id = t.user_id AND m.membership IN ('join', 'invite'))
		AND NOT EXISTS (SELECT 1 FROM ghost g WHERE g.user_id = t.user_id)
		AND NOT EXISTS (SELECT 1 FROM crypto_megolm_inbound_session s WHERE s.source_user = t.user_id)`

// forgettable is one who is unneeded, and with whose devices there is no Olm session that was used since $1.
const forgettable = unneeded + `
		AND NOT EXISTS (SELECT 1 FROM crypto_device d JOIN crypto_olm_session o ON o.sender_key = d.identity_key
			WHERE d.user_id = t.user_id AND (o.last_decrypted >= $1 OR o.last_encrypted >= $1 OR o.created_at >= $1))`

// forgettableUsers finds them, but the bridge's own.
const forgettableUsers = `SELECT t.user_id FROM crypto_tracked_user t
		LEFT JOIN (SELECT DISTINCT substr(account_id, 1, length(account_id) - length(device_id) - 1) AS user_id FROM crypto_account) own ON own.user_id = t.user_id
		WHERE own.user_id IS NULL AND ` + forgettable + ` LIMIT $2`

// stranger is a user t who is unneeded and for whom nobody has asked: only messages of theirs have named devices. With those there is no Olm session any more.
const stranger = unneeded + ` AND NOT EXISTS (SELECT 1 FROM crypto_tracked_user k WHERE k.user_id = t.user_id)
		AND NOT EXISTS (SELECT 1 FROM crypto_device d JOIN crypto_olm_session o ON o.sender_key = d.identity_key WHERE d.user_id = t.user_id)`

// pruneStrangers forgets their devices, and who has signed those.
func (s *Store) pruneStrangers(ctx context.Context) error {
	return sweep(ctx, s, func(row *sql.Rows, user *string) error { return row.Scan(user) }, (*Tx).forgetStranger, `SELECT t.user_id FROM (SELECT DISTINCT user_id FROM crypto_device) t
		LEFT JOIN (SELECT DISTINCT substr(account_id, 1, length(account_id) - length(device_id) - 1) AS user_id FROM crypto_account) own ON own.user_id = t.user_id
		WHERE own.user_id IS NULL AND `+stranger+` LIMIT $1`)
}

// forgetStranger forgets a stranger's devices, unless the bridge has something of him by now, and says of how many rows that was.
func (tx *Tx) forgetStranger(user string) (int64, error) {
	n, err := tx.exec(`DELETE FROM crypto_device AS t WHERE t.user_id = $1 AND `+stranger, user)
	if err != nil || n == 0 {
		return n, err
	}
	return 2 * n, tx.forgetDevices(user, nil)
}

// pruneUsers forgets the devices and keys of users who are [forgettable]. Who comes back is asked for again.
func (s *Store) pruneUsers(ctx context.Context, unused time.Time) error {
	return sweep(ctx, s, func(row *sql.Rows, user *string) error { return row.Scan(user) }, func(tx *Tx, user string) (int64, error) {
		return tx.forgetUser(user, unused)
	}, forgettableUsers, unused)
}

// forgetUser forgets a user unless the bridge has something of him by now, and says of how many rows that was.
func (tx *Tx) forgetUser(user string, unused time.Time) (int64, error) {
	n, err := tx.exec(`DELETE FROM crypto_tracked_user AS t WHERE t.user_id = $2 AND `+forgettable, unused, user)
	if err != nil || n == 0 {
		return n, err
	}
	if _, err := tx.exec(`DELETE FROM crypto_cross_signing_keys WHERE user_id = $1`, user); err != nil {
		return 0, err
	}
	devices, err := tx.exec(`UPDATE crypto_device SET deleted = true WHERE user_id = $1`, user)
	if err != nil {
		return 0, err
	}
	return n + 3*devices, tx.DeleteGoneDevices(user, 0) // each is marked and deleted, and so is its signature
}
