package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"
)

// Parked is an element of the inbox that cannot be read yet: the key of its session has not come.
type Parked struct {
	ID      int64 // given by Park, never used twice
	Room    string
	Session string
	Until   time.Time // after which nobody waits for the key any more
	Element
}

// Park keeps the element apart until its session's key comes, or p.Until. Commit it with the end of the element in its lane, so that the element is
// in one of the two places. It sets the ID. The element's bytes are copied.
func (tx *Tx) Park(p *Parked) error {
	err := tx.row([]any{&p.ID}, `INSERT INTO parked (room, session, kind, lane, key, expires, body) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
		toColumn(p.Room), toColumn(p.Session), int64(p.Kind), toColumn(p.Lane), toColumn(p.Key), toMillis(p.Until), toBlob(p.Raw))
	return doing(err, "parking %q of %s", p.Key, p.Room)
}

const parkedColumns = `id, room, session, kind, lane, key, expires, body`

func scanParked(rows *sql.Rows) (Parked, error) {
	var p Parked
	err := rows.Scan(&p.ID, text{&p.Room}, text{&p.Session}, &p.Kind, text{&p.Lane}, text{&p.Key}, moment{&p.Until}, blob{&p.Raw})
	p.Again = true
	return p, err
}

// Unpark takes what waits for a session's key back into the inbox, at the end of its lanes, in the order in which it was parked: to be called in the
// commit that keeps the key. It gives what [Tx.Ingest] gives, for the lanes.
func (tx *Tx) Unpark(room, session string) ([]LaneRefs, error) {
	var waited []Parked
	err := tx.each(func(rows *sql.Rows) error {
		p, err := scanParked(rows)
		waited = append(waited, p)
		return err
	}, `DELETE FROM parked WHERE room = $1 AND session = $2 RETURNING `+parkedColumns, toColumn(room), toColumn(session))
	if err != nil || len(waited) == 0 {
		return nil, doing(err, "taking up what waits for a key in %s", room)
	}
	slices.SortFunc(waited, func(a, b Parked) int { return cmp.Compare(a.ID, b.ID) }) // a DELETE has no order
	t := &Transaction{ID: "unparked", Received: tx.now()}
	for i := range waited {
		t.Elements = append(t.Elements, waited[i].Element)
	}
	return tx.Ingest(t)
}

// Overdue gives at most limit of those whose time is over, the longest overdue first.
func (s *Store) Overdue(ctx context.Context, limit int) (out []Parked, err error) {
	err = s.each(ctx, func(rows *sql.Rows) error {
		p, err := scanParked(rows)
		out = append(out, p)
		return err
	}, `SELECT `+parkedColumns+` FROM parked WHERE expires <= $1 ORDER BY expires, id LIMIT $2`, toMillis(s.opts.Now()), limit)
	return out, doing(err, "looking what has waited too long for its key")
}

// Unparked ends the waiting of one element, for the caller to bury it in the same commit. ErrNotFound: its key has come.
func (tx *Tx) Unparked(id int64) error {
	n, err := tx.exec(`DELETE FROM parked WHERE id = $1`, id)
	return doing(changed(n, err), "ending the wait of parked event %d", id)
}

// ParkedUntil gives when the first of what is parked is overdue; zero when nothing is.
func (s *Store) ParkedUntil(ctx context.Context) (first time.Time, err error) {
	err = s.one(ctx, []any{moment{&first}}, `SELECT COALESCE(MIN(expires), 0) FROM parked`)
	return first, doing(err, "looking what waits for keys")
}
