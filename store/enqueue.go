package store

// enqueued are the rows that a group's jobs have enqueued. From the second on they are written together before COMMIT,
// which on PostgreSQL saves a round trip for each.
type enqueued struct {
	rows   []*Outgoing
	ids    []int64 // the next ones, in order; what is left of them at the end of the group is never used
	begun  bool    // there was a first
	direct bool    // write each at once, to find the one that cannot be written
}

// idsAtOnce is how many numbers are asked for at once.
const idsAtOnce = 64

func (o *Outgoing) columns() []any {
	return []any{
		toColumn(o.Lane), toColumn(o.Key), toColumn(o.Op), toColumn(o.TxnID), toFlag(o.Doubt), o.Attempts,
		toMillis(o.NextAt), toMillis(o.Created), toCause(o.Cause), toBlob(o.Payload),
	}
}

func (tx *Tx) enqueue(o *Outgoing) (err error) {
	q := &tx.w.enqueued
	if q.direct || !q.begun {
		q.begun = true
		return tx.row([]any{&o.ID}, `INSERT INTO outbox (lane, key, op, txn_id, doubt, attempts, next_at, created, cause, payload)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id`, o.columns()...)
	}
	if len(q.ids) == 0 {
		if q.ids, err = tx.w.engine.outboxIDs(tx, idsAtOnce); err != nil {
			return err
		}
	} else if err = tx.ready(nil); err != nil {
		return err
	}
	o.ID, q.ids = q.ids[0], q.ids[1:]
	row, n := *o, len(q.rows)
	q.rows = append(q.rows, &row)
	tx.w.bytes += len(row.Lane) + len(row.Payload)
	tx.undo(func() { q.rows = q.rows[:n] })
	return nil
}

// writeEnqueued comes before whatever else is done with the outbox, and before COMMIT.
func (tx *Tx) writeEnqueued() error {
	q := &tx.w.enqueued
	if len(q.rows) == 0 {
		return nil
	}
	rows := q.rows
	if err := tx.w.engine.enqueue(tx, rows); err != nil {
		return doing(err, "enqueueing %d rows", len(rows))
	}
	q.rows = nil
	tx.undo(func() { q.rows = rows })
	return nil
}

// outbox changes rows of the outbox.
func (tx *Tx) outbox(query string, args ...any) (int64, error) {
	if err := tx.writeEnqueued(); err != nil {
		return 0, err
	}
	return tx.exec(query, args...)
}
