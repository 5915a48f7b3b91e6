package store

import (
	"context"
	"database/sql"
)

// Bury writes a dead letter and sets its ID.
func (tx *Tx) Bury(d *DeadLetter) error {
	if d.Created.IsZero() {
		d.Created = tx.w.store.opts.Now()
	}
	err := tx.row([]any{&d.ID}, `INSERT INTO dead_letter (kind, lane, key, cause, attempts, created, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
		toColumn(d.Kind), toColumn(d.Lane), toColumn(d.Key), toCause(d.Cause), d.Attempts, toMillis(d.Created), toBlob(d.Body))
	return doing(err, "burying %s %q", d.Kind, d.Key)
}

// DropDeadLetter deletes a dead letter: it was dealt with, or is given up. ErrNotFound when there is none.
func (tx *Tx) DropDeadLetter(id int64) error {
	return doing(changed(tx.exec(`DELETE FROM dead_letter WHERE id = $1`, id)), "dropping dead letter %d", id)
}

const deadLetterColumns = `SELECT id, kind, lane, key, cause, attempts, created, body FROM dead_letter `

func (d *DeadLetter) columns() []any {
	return []any{&d.ID, text{&d.Kind}, text{&d.Lane}, text{&d.Key}, text{&d.Cause}, &d.Attempts, moment{&d.Created}, blob{&d.Body}}
}

// DeadLetters gives at most limit dead letters with IDs above after, in the order of their IDs.
func (s *Store) DeadLetters(ctx context.Context, after int64, limit int) ([]DeadLetter, error) {
	var out []DeadLetter
	err := s.each(ctx, func(rows *sql.Rows) error {
		var d DeadLetter
		err := rows.Scan(d.columns()...)
		out = append(out, d)
		return err
	}, deadLetterColumns+`WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	return out, doing(err, "listing the dead letters")
}

// DeadLetter reads one; ErrNotFound when there is none.
func (s *Store) DeadLetter(ctx context.Context, id int64) (*DeadLetter, error) {
	var d DeadLetter
	if err := s.one(ctx, d.columns(), deadLetterColumns+`WHERE id = $1`, id); err != nil {
		return nil, doing(err, "reading dead letter %d", id)
	}
	return &d, nil
}
