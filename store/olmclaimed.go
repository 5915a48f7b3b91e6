package store

import (
	"context"
	"database/sql"
)

// OlmSessionClaimed notes of an Olm session that a device of the bridge has begun the ed25519 key of whose one-time key it was begun with.
func (tx *Tx) OlmSessionClaimed(account, session, signingKey string) error {
	_, err := tx.exec(`INSERT INTO olm_claimed (account, session, signing_key) VALUES ($1, $2, $3)
		ON CONFLICT (account, session) DO UPDATE SET signing_key = excluded.signing_key`, account, session, signingKey)
	return doing(err, "noting whose key an Olm session was begun with")
}

// pruneClaimed forgets that of sessions that are gone.
func (s *Store) pruneClaimed(ctx context.Context) error {
	return sweep(ctx, s, func(row *sql.Rows, note *[2]string) error { return row.Scan(&note[0], &note[1]) }, func(tx *Tx, note [2]string) (int64, error) {
		return tx.exec(`DELETE FROM olm_claimed WHERE account = $1 AND session = $2`, note[0], note[1])
	}, `SELECT account, session FROM olm_claimed c WHERE NOT EXISTS
		(SELECT 1 FROM crypto_olm_session s WHERE s.account_id = c.account AND s.session_id = c.session) LIMIT $1`)
}
