package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// Replay ends the dead letter and takes in t, which was made from it: from this commit on its elements wait in the inbox,
// and the letter is gone. It gives what [Tx.Ingest] gives, for the lanes. t.Dead are buried in the same commit, and get
// their IDs. An open request for the letter is answered. ErrNotFound, with nothing done, when the letter is not there.
func (tx *Tx) Replay(id int64, t *Transaction) ([]LaneRefs, error) {
	if err := changed(tx.exec(`DELETE FROM dead_letter WHERE id = $1`, id)); err != nil {
		return nil, doing(err, "replaying dead letter %d", id)
	}
	// Not by Ingest, which keeps what was buried before from being buried again: this one was, and has just left.
	var parts []string
	for i := range t.Dead {
		if err := tx.Bury(&t.Dead[i]); err != nil {
			return nil, err
		}
		parts = append(parts, fmt.Sprint(t.Dead[i].ID))
	}
	fresh := *t
	fresh.Dead = nil
	lanes, err := tx.Ingest(&fresh)
	if err != nil {
		return nil, err
	}
	var went int64
	if len(lanes) > 0 {
		went = lanes[0].Refs[0].Seq
	}
	cause := ""
	if len(parts) > 0 {
		cause = "parts of it cannot be taken in, and are dead letters of their own: " + strings.Join(parts, ", ")
	}
	return lanes, tx.answer(id, ResultReplayed, cause, went)
}

// ReplayOutgoing puts a dead letter of kind "outbox" back into the outbox, with the transaction ID and the payload that it
// had, as a row of no attempts, at the end of its lane; that it has a cause tells it from a new one. An open request for the letter is answered. ErrNotFound, with
// nothing done, when there is no such letter.
func (tx *Tx) ReplayOutgoing(id int64) (*Outgoing, error) {
	var o Outgoing
	err := tx.row([]any{text{&o.Lane}, text{&o.TxnID}, text{&o.Op}, blob{&o.Payload}},
		`DELETE FROM dead_letter WHERE id = $1 AND kind = 'outbox' RETURNING lane, key, op, body`, id)
	if err != nil {
		return nil, doing(err, "replaying dead letter %d", id)
	}
	o.Cause = "taken up again"
	// No key: it is known from the first time.
	if _, err = tx.Enqueue(&o); err != nil {
		return nil, err
	}
	return &o, tx.answer(id, ResultReplayed, "", o.ID)
}

// RefuseReplay writes down why a dead letter cannot be taken up. It stays, with this cause; an open request for it is
// answered. ErrNotFound when there is no such letter.
func (tx *Tx) RefuseReplay(id int64, cause string) error {
	n, err := tx.exec(`UPDATE dead_letter SET cause = $2 WHERE id = $1`, id, toCause(cause))
	if err = changed(n, err); err == nil {
		err = tx.answer(id, ResultRefused, cause, 0)
	}
	return doing(err, "refusing to replay dead letter %d", id)
}

// AnswerMissing answers the open request for a dead letter that is not there.
func (tx *Tx) AnswerMissing(id int64) error { return tx.answer(id, ResultMissing, "", 0) }

func (tx *Tx) answer(letter int64, result, cause string, went int64) error {
	_, err := tx.exec(`UPDATE letter_request SET answered = $2, result = $3, cause = $4, went_to = $5 WHERE letter = $1 AND answered = 0`,
		letter, toMillis(tx.w.store.opts.Now()), result, toCause(cause), went)
	return doing(err, "answering the request for dead letter %d", letter)
}

const requestColumns = `SELECT letter, action, asked, answered, result, cause, went_to FROM letter_request `

func (r *LetterRequest) columns() []any {
	return []any{&r.Letter, &r.Action, moment{&r.Asked}, moment{&r.Answered}, &r.Result, text{&r.Cause}, &r.Went}
}

// OpenRequests gives at most limit requests that wait for an answer, in the order of the letters. It costs next to nothing
// while there are none.
func (s *Store) OpenRequests(ctx context.Context, limit int) ([]LetterRequest, error) {
	var out []LetterRequest
	err := s.each(ctx, func(rows *sql.Rows) error {
		var r LetterRequest
		err := rows.Scan(r.columns()...)
		out = append(out, r)
		return err
	}, requestColumns+`WHERE answered = 0 ORDER BY letter LIMIT $1`, limit)
	return out, doing(err, "reading the requests for dead letters")
}
