package store

import (
	"context"
	"database/sql"
	"time"
)

// MediaRevocation ended links before their time: those that the scope means and that were made until Made, or, when it is Final, whenever they
// were made.
type MediaRevocation struct {
	ID int64
	MediaScope
	Made  time.Time
	Final bool // a redaction: the message is gone, and gets no new links
}

// Covers says whether it ended a link.
func (r *MediaRevocation) Covers(m *Media) bool {
	same := func(mine, its string) bool { return mine == "" || mine == its }
	return (r.Record == 0 || r.Record == m.ID) && same(r.Room, m.Room) && (same(r.Event, m.Event) || r.Event == m.Edit) && same(r.Sender, m.Sender) &&
		same(r.Server, m.Server) && same(r.MediaScope.Media, m.MediaID) && (r.Final || toMillis(m.Created) <= toMillis(r.Made))
}

// RevokeMedia ends all links of an event, a message or an edit of one, now and for ever: it was redacted. What their pages showed is
// deleted. n is the number of records.
func (tx MediaTx) RevokeMedia(room, event string) (n int64, err error) {
	return tx.revoke(MediaScope{Room: room, Event: event}, true)
}

// RevokeLinks ends the links that the scope means and that were made until now, self-contained ones too, except by Record or Sender, of which
// those say nothing. n is the number of records.
func (tx MediaTx) RevokeLinks(sc MediaScope) (n int64, err error) { return tx.revoke(sc, false) }

func (tx MediaTx) revoke(sc MediaScope, final bool) (n int64, err error) {
	now := tx.db.now()
	condition, args := sc.where(1)
	n, err = tx.db.exec(`UPDATE media SET revoked = $1 WHERE revoked = 0 AND `+condition, append([]any{toMillis(now)}, args...)...)
	if err == nil && final {
		err = tx.dropPages(sc)
	}
	if err == nil {
		_, err = tx.db.exec(`INSERT INTO media_revocation (made, final, record, room, event, sender, server, media_id)
			SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), CAST($3 AS BIGINT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS TEXT), CAST($8 AS TEXT)
			WHERE $2 = 0 OR NOT EXISTS (SELECT 1 FROM media_revocation WHERE event = $5 AND room = $4 AND final = 1)`,
			toMillis(now), toFlag(final), sc.Record, toColumn(sc.Room), toColumn(sc.Event), toColumn(sc.Sender), toColumn(sc.Server), toColumn(sc.Media))
	}
	if own, ok := tx.db.(*Tx); ok && err == nil {
		own.AfterCommit(func() { own.w.store.mediaRevocations.Add(1) })
	}
	return n, doing(err, "revoking media links")
}

// MediaRevocationsMade counts the commits of this process that revoked media links: each before its commit returns. What another process revokes is not in it.
func (s *Store) MediaRevocationsMade() uint64 { return s.mediaRevocations.Load() }

// MediaRevocations gives those with IDs above after that were made since then, in the order of their IDs, at most 1000. IDs are given before
// commits are through: one may appear some time after a higher one.
func (s *Store) MediaRevocations(ctx context.Context, after int64, since time.Time) ([]MediaRevocation, error) {
	return s.read.mediaRevocations(ctx, after, since)
}

func (r *reader) mediaRevocations(ctx context.Context, after int64, since time.Time) ([]MediaRevocation, error) {
	var out []MediaRevocation
	err := r.each(ctx, func(rows *sql.Rows) error {
		var v MediaRevocation
		err := rows.Scan(&v.ID, moment{&v.Made}, flag{&v.Final}, &v.Record, text{&v.Room}, text{&v.Event}, text{&v.Sender}, text{&v.Server}, text{&v.MediaScope.Media})
		out = append(out, v)
		return err
	}, `SELECT id, made, final, record, room, event, sender, server, media_id FROM media_revocation
		WHERE id > $1 AND made >= $2 ORDER BY id LIMIT 1000`, after, toMillis(since))
	return out, doing(err, "reading the revocations of media links")
}

// LinkRevoked says whether a link without a record was revoked, by its room, event, media and time.
func (s *Store) LinkRevoked(ctx context.Context, m *Media) (bool, error) {
	return s.read.linkRevoked(ctx, m)
}

func (r *reader) linkRevoked(ctx context.Context, m *Media) (bool, error) {
	var n int64
	err := r.one(ctx, []any{&n}, `SELECT COUNT(*) FROM media_revocation WHERE event IN ('', $1) AND room IN ('', $2) AND server IN ('', $3)
		AND media_id IN ('', $4) AND sender = '' AND record = 0 AND (final = 1 OR made >= $5)`,
		toColumn(m.Event), toColumn(m.Room), toColumn(m.Server), toColumn(m.MediaID), toMillis(m.Created))
	return n > 0, doing(err, "looking whether a link to mxc://%s/%s was revoked", m.Server, m.MediaID)
}
