package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
)

// Bury writes a dead letter and sets its ID.
func (tx *Tx) Bury(d *DeadLetter) error {
	if d.Created.IsZero() {
		d.Created = tx.w.store.opts.Now()
	}
	err := tx.row([]any{&d.ID}, `INSERT INTO dead_letter (kind, lane, key, op, cause, attempts, doubt, came_from, created, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id`,
		toColumn(d.Kind), toColumn(d.Lane), toColumn(d.Key), toColumn(d.Op), toCause(d.Cause), d.Attempts, toFlag(d.Doubt), d.From,
		toMillis(d.Created), toBlob(d.Body))
	return doing(err, "burying %s %q", d.Kind, d.Key)
}

// DropDeadLetter deletes a dead letter: it was dealt with, or is given up. ErrNotFound when there is none.
func (tx *Tx) DropDeadLetter(id int64) error {
	n, err := tx.exec(`DELETE FROM dead_letter WHERE id = $1`, id)
	if err = changed(n, err); err == nil {
		err = tx.answer(id, ResultDropped, "", 0)
	}
	return doing(err, "dropping dead letter %d", id)
}

const letterColumns = `id, kind, lane, key, op, cause, attempts, doubt, came_from, created, length(body)`

func (d *DeadLetter) columns() []any {
	return []any{&d.ID, text{&d.Kind}, text{&d.Lane}, text{&d.Key}, text{&d.Op}, text{&d.Cause}, &d.Attempts, flag{&d.Doubt}, &d.From,
		moment{&d.Created}, &d.Size}
}

// DeadLetters lists dead letters.
func (s *Store) DeadLetters(ctx context.Context, q LetterQuery) ([]DeadLetter, error) {
	return s.read.deadLetters(ctx, q)
}

// DeadLetter reads one, with its body; ErrNotFound when there is none.
func (s *Store) DeadLetter(ctx context.Context, id int64) (*DeadLetter, error) {
	return s.read.deadLetter(ctx, id)
}

// DeadLetterCount says how many dead letters there are. It reads no letter.
func (s *Store) DeadLetterCount(ctx context.Context) (n int64, err error) {
	return s.read.deadLetterCount(ctx)
}

func (r *reader) deadLetters(ctx context.Context, q LetterQuery) ([]DeadLetter, error) {
	order, after, limit := "id > $1", q.After, q.Limit
	if q.Newest {
		if order = "id < $1"; after <= 0 {
			after = math.MaxInt64
		}
	}
	if limit <= 0 {
		limit = 100
	}
	args := []any{after, limit}
	bind := func(value any) string {
		args = append(args, value)
		return fmt.Sprintf("$%d", len(args))
	}
	query := "SELECT " + letterColumns
	if q.Bodies {
		query += ", body"
	}
	query += " FROM dead_letter WHERE " + order
	if q.Kind != "" {
		query += " AND kind = " + bind(toColumn(q.Kind))
	}
	if len(q.Lanes) > 0 {
		var list []string
		for _, lane := range q.Lanes {
			list = append(list, bind(toColumn(lane)))
		}
		query += " AND lane IN (" + strings.Join(list, ", ") + ")"
	}
	if query += " ORDER BY id"; q.Newest {
		query += " DESC"
	}
	var out []DeadLetter
	err := r.each(ctx, func(rows *sql.Rows) error {
		var d DeadLetter
		columns := d.columns()
		if q.Bodies {
			columns = append(columns, blob{&d.Body})
		}
		err := rows.Scan(columns...)
		out = append(out, d)
		return err
	}, query+" LIMIT $2", args...)
	return out, doing(err, "listing the dead letters")
}

func (r *reader) deadLetter(ctx context.Context, id int64) (*DeadLetter, error) {
	var d DeadLetter
	err := r.one(ctx, append(d.columns(), blob{&d.Body}), `SELECT `+letterColumns+`, body FROM dead_letter WHERE id = $1`, id)
	if err != nil {
		return nil, doing(err, "reading dead letter %d", id)
	}
	return &d, nil
}

func (r *reader) deadLetterCount(ctx context.Context) (n int64, err error) {
	// The index on created holds an entry for each, and no body.
	err = r.one(ctx, []any{&n}, `SELECT COUNT(*) FROM dead_letter`)
	return n, doing(err, "counting the dead letters")
}
