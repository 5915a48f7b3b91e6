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
	Sender  string    // of the event: the key is to be his
	Until   time.Time // after which nobody waits for the key any more
	Element
}

// Park keeps the element apart until its session's key comes, or p.Until. Commit it with the end of the element in its lane, so that the element is
// in one of the two places. It sets the ID. The element's bytes are copied. What was parked before waits no longer than it was to wait then.
func (tx *Tx) Park(p *Parked) error {
	err := tx.row([]any{&p.ID}, `INSERT INTO parked (room, session, kind, lane, key, expires, body, sender)
		VALUES ($1, $2, $3, $4, $5, COALESCE((SELECT u.expires FROM unparked u WHERE u.event = $5), $6), $7, $8) RETURNING id`,
		toColumn(p.Room), toColumn(p.Session), int64(p.Kind), toColumn(p.Lane), toColumn(p.Key), toMillis(p.Until), toBlob(p.Raw), toColumn(p.Sender))
	return doing(err, "parking %q of %s", p.Key, p.Room)
}

const parkedColumns = `id, room, session, kind, lane, key, expires, body, sender`

func scanParked(rows *sql.Rows) (Parked, error) {
	var p Parked
	err := rows.Scan(&p.ID, text{&p.Room}, text{&p.Session}, &p.Kind, text{&p.Lane}, text{&p.Key}, moment{&p.Until}, blob{&p.Raw}, text{&p.Sender})
	p.Again = true
	return p, err
}

// Unpark takes what waits for a sender's key of a session back into the inbox, at the end of its lanes, in the order in which it was parked: to be called in the
// commit that keeps the key. It gives what [Tx.Ingest] gives, for the lanes. An empty sender is everybody.
func (tx *Tx) Unpark(room, session, sender string) ([]LaneRefs, error) {
	var waited []Parked
	err := tx.each(func(rows *sql.Rows) error {
		p, err := scanParked(rows)
		waited = append(waited, p)
		return err
	}, `DELETE FROM parked WHERE room = $1 AND session = $2 AND ($3 = '' OR sender = $3 OR sender = '') RETURNING `+parkedColumns,
		toColumn(room), toColumn(session), toColumn(sender))
	if err != nil || len(waited) == 0 {
		return nil, doing(err, "taking up what waits for a key in %s", room)
	}
	slices.SortFunc(waited, func(a, b Parked) int { return cmp.Compare(a.ID, b.ID) }) // a DELETE has no order
	t := &Transaction{ID: "unparked", Received: tx.now()}
	for i := range waited {
		t.Elements = append(t.Elements, waited[i].Element)
		if waited[i].Key == "" {
			continue
		}
		if _, err := tx.exec(`INSERT INTO unparked (event, expires) VALUES ($1, $2) ON CONFLICT (event) DO NOTHING`,
			toColumn(waited[i].Key), toMillis(waited[i].Until)); err != nil {
			return nil, doing(err, "noting how long %q has waited for its key", waited[i].Key)
		}
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
	var key string
	err := tx.row([]any{text{&key}}, `DELETE FROM parked WHERE id = $1 RETURNING key`, id)
	if err == nil { // who takes it up again later waits anew
		_, err = tx.exec(`DELETE FROM unparked WHERE event = $1`, toColumn(key))
	}
	return doing(err, "ending the wait of parked event %d", id)
}

// WithdrawParked forgets an event that waits for its key: it was taken back.
func (tx *Tx) WithdrawParked(room, event string) error {
	_, err := tx.exec(`DELETE FROM parked WHERE room = $1 AND key = $2`, toColumn(room), toColumn(event))
	return doing(err, "withdrawing %q of %s, which waits for its key", event, room)
}

// ParkedUntil gives when the first of what is parked is overdue; zero when nothing is.
func (s *Store) ParkedUntil(ctx context.Context) (first time.Time, err error) {
	err = s.one(ctx, []any{moment{&first}}, `SELECT COALESCE(MIN(expires), 0) FROM parked`)
	return first, doing(err, "looking what waits for keys")
}
