package store

import (
	"context"
	"errors"
	"time"
)

// MediaPage is what a page shows, for the record of its link: [Media] with a Kind.
type MediaPage struct {
	Record  int64
	Body    []byte
	Written time.Time // when its message was written, or last edited
}

// AddPage writes the record of a page and what it shows, and sets the record's ID. A page of the same kind of the same event whose link is still good
// is taken instead, with its expiry, and shows from now on what is newer, and ends with m.Edit then. Of an event that was redacted the link is revoked from the start, and nothing is kept.
func (tx MediaTx) AddPage(m *Media, p *MediaPage) error {
	if m.Created.IsZero() {
		m.Created = tx.db.now()
	}
	err := ErrNotFound
	if m.Event != "" {
		err = tx.db.row([]any{&m.ID, moment{&m.Created}, moment{&m.Expires}}, `SELECT id, created, expires FROM media
			WHERE room = $1 AND event = $2 AND kind = $3 AND sender = $4 AND revoked = 0 AND (expires = 0 OR expires > $5) ORDER BY id DESC LIMIT 1`,
			toColumn(m.Room), toColumn(m.Event), m.Kind, toColumn(m.Sender), toMillis(m.Created))
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return doing(err, "looking for the page of event %s", m.Event)
	}
	if err != nil {
		if err = tx.insert(m); err != nil || !m.Revoked.IsZero() {
			return err
		}
	}
	p.Record = m.ID
	shown, err := tx.db.exec(`INSERT INTO media_page (record, written, body) VALUES ($1, $2, $3)
		ON CONFLICT (record) DO UPDATE SET written = excluded.written, body = excluded.body WHERE media_page.written <= excluded.written`,
		p.Record, toMillis(p.Written), toBlob(p.Body))
	if err == nil && shown > 0 {
		_, err = tx.db.exec(`UPDATE media SET edit = $1 WHERE id = $2`, toColumn(m.Edit), m.ID)
	}
	return doing(err, "writing the page of event %s", m.Event)
}

// EditPages has the pages of a message, by m's Room, Event, Sender and Kind, show what m.Edit made of it, unless they show something newer or that
// was redacted. n is the number of pages: there may be none, and nothing is made then.
func (tx MediaTx) EditPages(m *Media, p *MediaPage) (n int64, err error) {
	if gone, err := tx.isRedacted(m); gone || err != nil {
		return 0, err
	}
	pages := `SELECT id FROM media WHERE room = $3 AND event = $4 AND sender = $5 AND kind = $6`
	of := []any{toColumn(m.Room), toColumn(m.Event), toColumn(m.Sender), m.Kind}
	_, err = tx.db.exec(`UPDATE media SET edit = $1 WHERE id IN (`+pages+`) AND id IN (SELECT record FROM media_page WHERE written <= $2)`,
		append([]any{toColumn(m.Edit), toMillis(p.Written)}, of...)...)
	if err == nil {
		n, err = tx.db.exec(`UPDATE media_page SET body = $1, written = $2 WHERE written <= $2 AND record IN (`+pages+`)`,
			append([]any{toBlob(p.Body), toMillis(p.Written)}, of...)...)
	}
	return n, doing(err, "editing the page of event %s", m.Event)
}

// dropPages deletes what the pages in a scope show: their message is gone.
func (tx MediaTx) dropPages(sc MediaScope) error {
	condition, args := sc.where(0)
	_, err := tx.db.exec(`DELETE FROM media_page WHERE record IN (SELECT id FROM media WHERE `+condition+`)`, args...)
	return err
}

// MediaPage reads what a page shows; ErrNotFound when that is gone, or the record is of no page.
func (s *Store) MediaPage(ctx context.Context, record int64) (*MediaPage, error) {
	return s.read.mediaPage(ctx, record)
}

// MediaPage is [Store.MediaPage].
func (v *Visitor) MediaPage(ctx context.Context, record int64) (*MediaPage, error) {
	p, err := v.read.mediaPage(ctx, record)
	return p, v.telling(err)
}

func (r *reader) mediaPage(ctx context.Context, record int64) (*MediaPage, error) {
	p := MediaPage{Record: record}
	err := r.one(ctx, []any{moment{&p.Written}, blob{&p.Body}}, `SELECT written, body FROM media_page WHERE record = $1`, record)
	if err != nil {
		return nil, doing(err, "reading the page of media record %d", record)
	}
	return &p, nil
}
