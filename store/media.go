package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MediaTx changes what media links stand for. Links are data and no progress: no epoch guards them, and whoever has the database may
// change them, the process that holds the store in its commits ([Tx]) and others beside it ([Visitor.ChangeMedia]).
type MediaTx struct{ db mediaDB }

// mediaDB is a transaction, of the writer's or a visitor's.
type mediaDB interface {
	exec(query string, args ...any) (rows int64, err error)
	row(into []any, query string, args ...any) error // ErrNotFound when there is none
	now() time.Time
}

// ChangeMedia runs job in a transaction; nil when what it did is durable.
func (s *Store) ChangeMedia(ctx context.Context, job func(tx MediaTx) error) error {
	return s.Commit(ctx, s.Epoch(), func(tx *Tx) error { return job(tx.MediaTx) })
}

// AddMedia writes what a short link stands for and sets its ID. A link to the same media in the same event that is still
// good is taken instead, with its expiry: a message that is tried again keeps its link. Of an event that was redacted
// the link is revoked from the start.
func (tx MediaTx) AddMedia(m *Media) error {
	if m.Created.IsZero() {
		m.Created = tx.db.now()
	}
	err := ErrNotFound
	if m.Event != "" {
		err = tx.db.row([]any{&m.ID, moment{&m.Created}, moment{&m.Expires}}, `SELECT id, created, expires FROM media
			WHERE room = $1 AND event = $2 AND server = $3 AND media_id = $4 AND name = $5 AND mime = $6 AND info = $8 AND kind = '' AND revoked = 0
			AND edit IN ('', $9)
			AND (expires = 0 OR expires > $7) ORDER BY id DESC LIMIT 1`,
			toColumn(m.Room), toColumn(m.Event), toColumn(m.Server), toColumn(m.MediaID), toColumn(m.Name), toColumn(m.MIME), toMillis(m.Created),
			toBlob(m.Info), toColumn(m.Edit))
	}
	if !errors.Is(err, ErrNotFound) {
		return doing(err, "looking for the link to mxc://%s/%s", m.Server, m.MediaID)
	}
	return tx.insert(m)
}

// isRedacted tells whether the event of a record was redacted, or the one that edited it.
func (tx MediaTx) isRedacted(m *Media) (bool, error) {
	if m.Event == "" {
		return false, nil
	}
	var there int64
	err := tx.db.row([]any{&there}, `SELECT COUNT(*) FROM media_revocation WHERE event IN ($1, $3) AND room = $2 AND final = 1`,
		toColumn(m.Event), toColumn(m.Room), toColumn(cmp.Or(m.Edit, m.Event)))
	return there > 0, doing(err, "looking whether event %s was redacted", m.Event)
}

// insert writes a new record. Of an event that was redacted it is revoked from the start.
func (tx MediaTx) insert(m *Media) error {
	if gone, err := tx.isRedacted(m); err != nil {
		return err
	} else if gone {
		m.Revoked = m.Created
	}
	// Records are numbered by the time: a database that was put back to an older state must not give a number again that
	// stands in somebody's link.
	err := tx.db.row([]any{&m.ID}, `INSERT INTO media (id, server, media_id, room, event, name, mime, size, created, expires, revoked, info, sender, kind, edit)
		VALUES ((SELECT CASE WHEN COALESCE(MAX(id), 0) < $15 THEN $15 ELSE MAX(id) + 1 END FROM media),
		$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING id`,
		toColumn(m.Server), toColumn(m.MediaID), toColumn(m.Room), toColumn(m.Event), toColumn(m.Name), toColumn(m.MIME), m.Size,
		toMillis(m.Created), toMillis(m.Expires), toMillis(m.Revoked), toBlob(m.Info), toColumn(m.Sender), m.Kind, toColumn(m.Edit), time.Now().UnixMicro())
	return doing(err, "writing the link to %s", m.what())
}

const mediaColumns = `SELECT id, server, media_id, room, event, name, mime, size, created, expires, revoked, info, sender, kind, edit FROM media `

// what names it in errors.
func (m *Media) what() string {
	if m.Kind != "" {
		return "a page of kind " + m.Kind
	}
	return "mxc://" + m.Server + "/" + m.MediaID
}

func (m *Media) columns() []any {
	return []any{&m.ID, text{&m.Server}, text{&m.MediaID}, text{&m.Room}, text{&m.Event}, text{&m.Name}, text{&m.MIME},
		&m.Size, moment{&m.Created}, moment{&m.Expires}, moment{&m.Revoked}, blob{&m.Info}, text{&m.Sender}, &m.Kind, text{&m.Edit}}
}

// Media reads what a short link stands for; ErrNotFound when its record is gone. Expires and Revoked are for the caller
// to judge.
func (s *Store) Media(ctx context.Context, id int64) (*Media, error) { return s.read.media(ctx, id) }

func (r *reader) media(ctx context.Context, id int64) (*Media, error) {
	var m Media
	if err := r.one(ctx, m.columns(), mediaColumns+`WHERE id = $1`, id); err != nil {
		return nil, doing(err, "reading media record %d", id)
	}
	return &m, nil
}

// MediaScope says which links are meant: those for which each field that is not empty is equal. The zero value means all.
type MediaScope struct {
	Record        int64 // ID of one record
	Room          string
	Event         string // the message's, or that of the edit that the link leads to
	Sender        string // of the event
	Server, Media string // the two parts of an mxc:// address
}

// where is the scope as a condition, with placeholders from the next one after used.
func (sc MediaScope) where(used int) (condition string, args []any) {
	terms := []string{"1 = 1"}
	add := func(column string, value any) {
		used++
		terms, args = append(terms, fmt.Sprintf("%s = $%d", column, used)), append(args, value)
	}
	if sc.Record != 0 {
		add("id", sc.Record)
	}
	if sc.Event != "" {
		add("event", toColumn(sc.Event))
		terms[len(terms)-1] = fmt.Sprintf("(event = $%[1]d OR edit = $%[1]d)", used)
	}
	for _, c := range []struct{ name, value string }{
		{"room", sc.Room}, {"sender", sc.Sender}, {"server", sc.Server}, {"media_id", sc.Media},
	} {
		if c.value != "" {
			add(c.name, toColumn(c.value))
		}
	}
	return strings.Join(terms, " AND "), args
}

// MediaLinks lists records with IDs above after, in the order of their IDs, at most limit.
func (s *Store) MediaLinks(ctx context.Context, sc MediaScope, after int64, limit int) ([]Media, error) {
	return s.read.mediaLinks(ctx, sc, after, limit)
}

func (r *reader) mediaLinks(ctx context.Context, sc MediaScope, after int64, limit int) ([]Media, error) {
	condition, args := sc.where(2)
	var out []Media
	err := r.each(ctx, func(rows *sql.Rows) error {
		var m Media
		err := rows.Scan(m.columns()...)
		out = append(out, m)
		return err
	}, mediaColumns+`WHERE id > $1 AND `+condition+` ORDER BY id LIMIT $2`, append([]any{after, limit}, args...)...)
	return out, doing(err, "listing the media links")
}
