package store

import (
	"bytes"
	"context"
	"database/sql"
	"regexp"
	"time"
)

const (
	// pruneKeysEvery is how often keys are swept: what is read for that has no index.
	pruneKeysEvery = day
	// keepRoomKeys is how long a room key from others is kept since it came or was last used, to within renewRoomKeys. Clients change keys every week, rooms may
	// say otherwise, and a message is delivered late that a homeserver held back.
	keepRoomKeys = 365 * day
	// keepStrangersKeys is the same for keys that have opened nothing, of users with whom the bridge shares no room. Who has just come is not known to be there yet.
	keepStrangersKeys = 7 * day
	// keepOwnRoomKeys is the same for keys that the bridge has made: nobody reads with them here, and whoever has the ghost's account may ask for them.
	keepOwnRoomKeys = 30 * day
	// renewRoomKeys is how old a key may seem that is in use.
	renewRoomKeys = 30 * day
	// keepOlmSessions is how long an Olm session is kept without use with a device that there is not, or not any more.
	keepOlmSessions = 30 * day
	// keepOlmHashes is how long a to-device message is known again: one that comes later was never acknowledged, and its key is
	// used up.
	keepOlmHashes = 90 * day
	// pruneKeysMost bounds what is looked for at once.
	pruneKeysMost = 20_000
)

// RenewRoomKey keeps a room key that was used now, of which it is known when it came or was last renewed, in the rows of these accounts.
func (tx *Tx) RenewRoomKey(session string, since time.Time, accounts ...string) error {
	if tx.now().Sub(since) < renewRoomKeys {
		return nil
	}
	for _, account := range accounts {
		if err := tx.KeepRoomKey(account, session); err != nil {
			return err
		}
	}
	return nil
}

// KeepRoomKey keeps a room key as one that was used now.
func (tx *Tx) KeepRoomKey(account, session string) error {
	_, err := tx.exec(`UPDATE crypto_megolm_inbound_session SET received_at = $1 WHERE account_id = $2 AND session_id = $3`, tx.now().UTC(), account, session)
	return doing(err, "renewing a room key")
}

// pruneKeys deletes keys that are of no more use. No key goes that could open what waits: it looks at parked events and dead letters, and does not delete
// room keys of others while the inbox has not been worked off.
func (s *Store) pruneKeys(ctx context.Context) error {
	now := s.opts.Now().UTC()
	if err := s.pruneGiven(ctx); err != nil {
		return doing(err, "deleting notes of who was given a room key")
	}
	if err := s.pruneOlmHashes(ctx, now.Add(-keepOlmHashes)); err != nil {
		return doing(err, "deleting old hashes of Olm messages")
	}
	if err := s.pruneRoomKeys(ctx, now); err != nil {
		return doing(err, "deleting old room keys")
	}
	if err := s.pruneUsers(ctx, now.Add(-keepOlmSessions)); err != nil {
		return doing(err, "forgetting the devices of users who are in no room")
	}
	if err := s.pruneOlmSessions(ctx, now.Add(-keepOlmSessions)); err != nil {
		return doing(err, "deleting Olm sessions with devices that are gone")
	}
	if err := s.pruneStrangers(ctx); err != nil {
		return doing(err, "forgetting the devices of users whom nobody has asked for")
	}
	return doing(s.pruneClaimed(ctx), "forgetting with whose keys Olm sessions were begun that are gone")
}

// sweep deletes what a query finds, up to a limit that is its last argument. There is no index for it, and so it is looked for where nobody waits, and deleted in
// small commits: remove says how many rows went.
func sweep[K any](ctx context.Context, s *Store, scan func(row *sql.Rows, key *K) error, remove func(tx *Tx, key K) (int64, error), query string, args ...any) error {
	args = append(args, pruneKeysMost)
	for {
		var found []K
		err := s.each(ctx, func(row *sql.Rows) error {
			var key K
			err := scan(row, &key)
			found = append(found, key)
			return err
		}, query, args...)
		if err != nil {
			return err
		}
		full, gone := len(found) == pruneKeysMost, int64(0)
		for len(found) > 0 {
			done, removed := 0, int64(0)
			err := s.Commit(ctx, s.epoch, func(tx *Tx) error {
				done, removed = 0, 0
				for done < min(len(found), pruneBatch) && removed < pruneBatch {
					n, err := remove(tx, found[done])
					if err != nil {
						return err
					}
					done, removed = done+1, removed+n
				}
				return nil
			})
			if err != nil {
				return err
			}
			found = found[done:]
			gone += removed
		}
		if !full || gone == 0 {
			return nil
		}
	}
}

// pruneOlmHashes deletes those by which no to-device message has to be known again.
func (s *Store) pruneOlmHashes(ctx context.Context, before time.Time) error {
	return sweep(ctx, s, func(row *sql.Rows, hash *[]byte) error { return row.Scan(hash) }, func(tx *Tx, hash []byte) (int64, error) {
		return tx.exec(`DELETE FROM crypto_olm_message_hash WHERE message_hash = $1`, hash)
	}, `SELECT message_hash FROM crypto_olm_message_hash WHERE received_at < $1 LIMIT $2`, toMillis(before))
}

// pruneOlmSessions deletes those with devices of which the homeserver does not say any more that there are such, and those that somebody has begun of whose key
// it never said so. Of other users whose devices nobody asks for, that is not known.
func (s *Store) pruneOlmSessions(ctx context.Context, unused time.Time) error {
	const old = `created_at < $1 AND last_decrypted < $1 AND last_encrypted < $1`
	err := sweep(ctx, s, func(row *sql.Rows, session *[2]string) error { return row.Scan(&session[0], &session[1]) }, func(tx *Tx, session [2]string) (int64, error) {
		return tx.exec(`DELETE FROM crypto_olm_session WHERE account_id = $2 AND session_id = $3 AND `+old, unused, session[0], session[1])
	}, `SELECT account_id, session_id FROM crypto_olm_session WHERE `+old+` AND sender_key NOT IN (SELECT identity_key FROM crypto_device WHERE deleted = false)
		AND (session_id IN (SELECT b.session FROM olm_begun b) OR sender_key IN
			(SELECT d.identity_key FROM crypto_device d JOIN crypto_tracked_user t ON t.user_id = d.user_id WHERE d.deleted = true AND t.devices_outdated = false))
		LIMIT $2`, unused)
	if err != nil {
		return err
	}
	return sweep(ctx, s, func(row *sql.Rows, id *int64) error { return row.Scan(id) }, func(tx *Tx, id int64) (int64, error) {
		return tx.exec(`DELETE FROM olm_begun WHERE id = $1`, id)
	}, `SELECT id FROM olm_begun b WHERE NOT EXISTS (SELECT 1 FROM crypto_olm_session s WHERE s.account_id = b.account AND s.session_id = b.session) LIMIT $1`)
}

// pruneGiven deletes what mautrix notes of to whom a key was given, for whoever asks for it again: the bridge gives none again that it does not use any more.
func (s *Store) pruneGiven(ctx context.Context) error {
	return sweep(ctx, s, func(row *sql.Rows, note *[3]string) error { return row.Scan(&note[0], &note[1], &note[2]) }, func(tx *Tx, note [3]string) (int64, error) {
		return tx.exec(`DELETE FROM crypto_megolm_outbound_session_shared WHERE user_id = $1 AND identity_key = $2 AND session_id = $3 AND NOT EXISTS
			(SELECT 1 FROM crypto_megolm_outbound_session o WHERE o.session_id = $3)`, note[0], note[1], note[2])
	}, `SELECT user_id, identity_key, session_id FROM crypto_megolm_outbound_session_shared s WHERE NOT EXISTS
		(SELECT 1 FROM crypto_megolm_outbound_session o WHERE o.session_id = s.session_id) LIMIT $1`)
}

// oldRoomKey is one that may go.
type oldRoomKey struct{ account, session string }

func (s *Store) pruneRoomKeys(ctx context.Context, now time.Time) error {
	// Those that a device of the bridge has made; what it sends with now is kept with it.
	err := s.pruneOldRoomKeys(ctx, now.Add(-keepOwnRoomKeys), `sender_key IN
		(SELECT d.identity_key FROM crypto_device d JOIN crypto_account a ON a.account_id = d.user_id || '/' || d.device_id) AND session_id NOT IN
		(SELECT session_id FROM crypto_megolm_outbound_session)`, func(_ context.Context, old []oldRoomKey) ([]oldRoomKey, error) { return old, nil })
	if err != nil {
		return err
	}
	waits, err := s.Depth(ctx)
	if err != nil || !waits.OldestInbox.IsZero() && now.Sub(waits.OldestInbox) > time.Minute {
		return err
	}
	for _, which := range []struct {
		keep time.Duration
		keys string
	}{{keepStrangersKeys, strangersKeys}, {keepRoomKeys, `true`}} {
		if err := s.pruneOldRoomKeys(ctx, now.Add(-which.keep), which.keys, s.notInLetters); err != nil {
			return err
		}
	}
	return nil
}

// pruneOldRoomKeys deletes those that were not used since, but what is waited for and what else unneeded leaves out. It goes through them in their order: what stays, be it
// ever so much, is looked at once, and what comes behind it is reached in the same sweep.
func (s *Store) pruneOldRoomKeys(ctx context.Context, before time.Time, which string, unneeded func(context.Context, []oldRoomKey) ([]oldRoomKey, error)) error {
	var after oldRoomKey
	for {
		old, err := s.oldRoomKeys(ctx, before, which, after)
		if err != nil || len(old) == 0 {
			return err
		}
		full := len(old) == pruneKeysMost
		after = old[len(old)-1]
		if old, err = unneeded(ctx, old); err == nil {
			err = s.deleteRoomKeys(ctx, old, before)
		}
		if err != nil || !full {
			return err
		}
	}
}

// strangersKeys are those that have opened nothing, of users with whom the bridge shares no room: a server may have any number of such users.
const strangersKeys = `source_user <> '' AND NOT EXISTS (SELECT 1 FROM member m WHERE m.user_id = source_user AND m.membership IN ('join', 'invite'))
	AND NOT EXISTS (SELECT 1 FROM ghost g WHERE g.user_id = source_user)
	AND NOT EXISTS (SELECT 1 FROM message_read r WHERE r.session = session_id) AND NOT EXISTS (SELECT 1 FROM crypto_message_index i WHERE i.session_id = crypto_megolm_inbound_session.session_id)`

// oldRoomKeys are the first of those that come after one.
func (s *Store) oldRoomKeys(ctx context.Context, before time.Time, which string, after oldRoomKey) (old []oldRoomKey, err error) {
	err = s.each(ctx, func(rows *sql.Rows) error {
		var key oldRoomKey
		err := rows.Scan(&key.account, &key.session)
		old = append(old, key)
		return err
	}, `SELECT account_id, session_id FROM crypto_megolm_inbound_session WHERE received_at < $1 AND (account_id, session_id) > ($2, $3) AND `+which+`
		ORDER BY account_id, session_id LIMIT $4`, before, after.account, after.session, pruneKeysMost)
	return old, err
}

// sessionID is what can be one in JSON. In that the slash may be written in two ways.
var sessionID = regexp.MustCompile(`[A-Za-z0-9+/]{43}`)

// notInLetters leaves those keys that no dead letter names: an administrator may want it read yet.
func (s *Store) notInLetters(ctx context.Context, old []oldRoomKey) (out []oldRoomKey, err error) {
	named := map[string]bool{}
	for _, key := range old {
		named[key.session] = false
	}
	for after := int64(0); ; {
		letters, err := s.DeadLetters(ctx, LetterQuery{After: after, Limit: 100, Bodies: true})
		if err != nil {
			return nil, err
		}
		for _, letter := range letters {
			after = letter.ID
			body := bytes.ReplaceAll(letter.Body, []byte(`\/`), []byte(`/`))
			for _, session := range sessionID.FindAll(body, -1) {
				if _, ok := named[string(session)]; ok {
					named[string(session)] = true
				}
			}
		}
		if len(letters) == 0 {
			break
		}
	}
	for _, key := range old {
		if !named[key.session] {
			out = append(out, key)
		}
	}
	return out, nil
}

// deleteRoomKeys deletes keys unless they came again or are waited for meanwhile, and with the last copy of each what tells its messages from repetitions: what
// cannot be read cannot be repeated.
func (s *Store) deleteRoomKeys(ctx context.Context, old []oldRoomKey, before time.Time) error {
	for len(old) > 0 {
		batch := old[:min(len(old), pruneBatch/10)]
		old = old[len(batch):]
		err := s.Commit(ctx, s.epoch, func(tx *Tx) error {
			for _, key := range batch {
				n, err := tx.exec(`DELETE FROM crypto_megolm_inbound_session WHERE account_id = $1 AND session_id = $2 AND received_at < $3 AND NOT EXISTS
					(SELECT 1 FROM parked p WHERE p.room = room_id AND p.session = $2)`, key.account, key.session, before)
				if err == nil && n > 0 {
					const unread = ` = $1 AND NOT EXISTS
						(SELECT 1 FROM crypto_account a CROSS JOIN crypto_megolm_inbound_session s WHERE s.account_id = a.account_id AND s.session_id = $1)`
					if _, err = tx.exec(`DELETE FROM message_read WHERE session`+unread, key.session); err == nil {
						_, err = tx.exec(`DELETE FROM crypto_message_index WHERE session_id`+unread, key.session)
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
