package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// remoteSpace keeps the hashes of remote keys apart from those of events.
const remoteSpace = 'r'

// Enqueue writes an outbox row and sets its ID. When o.Key is known from an earlier Enqueue, nothing is written and fresh
// is false.
func (tx *Tx) Enqueue(o *Outgoing) (fresh bool, err error) {
	now := tx.w.store.opts.Now()
	if o.Key != "" {
		h := hashKey(remoteSpace, o.Key)
		n, err := tx.exec(`INSERT INTO seen_remote (hash, added) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING`, h[:], toMillis(now))
		if err != nil {
			return false, doing(err, "remembering the remote key %q", o.Key)
		}
		if n == 0 {
			return false, nil
		}
	}
	if o.Created.IsZero() {
		o.Created = now
	}
	err = tx.enqueue(o)
	return err == nil, doing(err, "enqueueing %s %q", o.Op, o.Key)
}

// OutgoingDoubt marks the row as under way: commit this before anything of it leaves the process.
func (tx *Tx) OutgoingDoubt(id int64) error {
	return doing(changed(tx.outbox(`UPDATE outbox SET doubt = 1 WHERE id = $1`, id)), "marking outbox row %d in doubt", id)
}

// OutgoingSealed keeps the ciphertext of the row's payload and, with doubt, marks the row as under way. Commit it with the step of the ratchet that made
// the ciphertext: from then on nothing else may be sent for this row.
func (tx *Tx) OutgoingSealed(id int64, sealed []byte, doubt bool) error {
	n, err := tx.outbox(`UPDATE outbox SET sealed = $2, doubt = CASE WHEN $3 = 1 THEN 1 ELSE doubt END WHERE id = $1`, id, toBlob(sealed), toFlag(doubt))
	return doing(changed(n, err), "keeping the ciphertext of outbox row %d", id)
}

// OutgoingPayload replaces what the row says, where carrying it out has found it to be something else.
func (tx *Tx) OutgoingPayload(id int64, payload []byte) error {
	n, err := tx.outbox(`UPDATE outbox SET payload = $2 WHERE id = $1`, id, toBlob(payload))
	return doing(changed(n, err), "replacing what outbox row %d says", id)
}

// OutgoingAttempt counts a failed attempt and clears the doubt mark: the caller knows that it did not get through.
func (tx *Tx) OutgoingAttempt(id int64, cause string, next time.Time) error {
	n, err := tx.outbox(`UPDATE outbox SET doubt = 0, attempts = attempts + 1, cause = $2, next_at = $3 WHERE id = $1`,
		id, toCause(cause), toMillis(next))
	return doing(changed(n, err), "counting an attempt at outbox row %d", id)
}

// OutgoingDone deletes the row; its key stays known. A row that is gone already is no error.
func (tx *Tx) OutgoingDone(id int64) error {
	_, err := tx.outbox(`DELETE FROM outbox WHERE id = $1`, id)
	return doing(err, "finishing outbox row %d", id)
}

// CancelOutgoing deletes the row of a lane with this key that was never tried, if may says that it may go. Its key stays known.
func (tx *Tx) CancelOutgoing(lane, key string, may func(id int64) bool) error {
	if err := tx.writeEnqueued(); err != nil {
		return err
	}
	var id int64
	err := tx.row([]any{&id}, `SELECT id FROM outbox WHERE lane = $1 AND key = $2 AND attempts = 0 AND doubt = 0 AND cause = ''`, toColumn(lane), toColumn(key))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil && may(id) {
		_, err = tx.exec(`DELETE FROM outbox WHERE id = $1`, id)
	}
	return doing(err, "cancelling the outbox row of %q", key)
}

// OutgoingBacklog gives all rows in the order of their IDs.
func (s *Store) OutgoingBacklog(ctx context.Context, fn func(lane string, id int64) error) error {
	const page = 1000
	type row struct {
		id   int64
		lane string
	}
	for after := int64(0); ; {
		var batch []row
		err := s.each(ctx, func(rows *sql.Rows) error {
			var r row
			err := rows.Scan(&r.id, text{&r.lane})
			batch = append(batch, r)
			return err
		}, `SELECT id, lane FROM outbox WHERE id > $1 ORDER BY id LIMIT $2`, after, page)
		if err != nil {
			return doing(err, "reading the outbox")
		}
		for _, r := range batch {
			if err = fn(r.lane, r.id); err != nil {
				return err
			}
			after = r.id
		}
		if len(batch) < page {
			return nil
		}
	}
}

// Outgoing reads an outbox row; ErrNotFound when it is done.
func (s *Store) Outgoing(ctx context.Context, id int64) (*Outgoing, error) {
	var o Outgoing
	err := s.one(ctx, []any{&o.ID, text{&o.Lane}, text{&o.Key}, text{&o.Op}, text{&o.TxnID}, flag{&o.Doubt}, &o.Attempts,
		moment{&o.NextAt}, moment{&o.Created}, text{&o.Cause}, blob{&o.Payload}, blob{&o.Sealed}},
		`SELECT id, lane, key, op, txn_id, doubt, attempts, next_at, created, cause, payload, sealed FROM outbox WHERE id = $1`, id)
	if err != nil {
		return nil, doing(err, "reading outbox row %d", id)
	}
	if len(o.Sealed) == 0 {
		o.Sealed = nil
	}
	return &o, nil
}
