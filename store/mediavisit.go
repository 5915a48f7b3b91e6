package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Media is [Store.Media].
func (v *Visitor) Media(ctx context.Context, id int64) (*Media, error) {
	m, err := v.read.media(ctx, id)
	return m, v.telling(err)
}

// MediaLinks is [Store.MediaLinks].
func (v *Visitor) MediaLinks(ctx context.Context, sc MediaScope, after int64, limit int) ([]Media, error) {
	out, err := v.read.mediaLinks(ctx, sc, after, limit)
	return out, v.telling(err)
}

// MediaKeys is [Store.MediaKeys].
func (v *Visitor) MediaKeys(ctx context.Context) ([]MediaKey, error) {
	out, err := v.read.mediaKeys(ctx)
	return out, v.telling(err)
}

// MediaRevocations is [Store.MediaRevocations].
func (v *Visitor) MediaRevocations(ctx context.Context, after int64, since time.Time) ([]MediaRevocation, error) {
	out, err := v.read.mediaRevocations(ctx, after, since)
	return out, v.telling(err)
}

// LinkRevoked is [Store.LinkRevoked].
func (v *Visitor) LinkRevoked(ctx context.Context, m *Media) (bool, error) {
	revoked, err := v.read.linkRevoked(ctx, m)
	return revoked, v.telling(err)
}

// ChangeMedia runs job in a transaction of the visitor's own; nil when what it did is durable. On SQLite the process that holds the store waits
// for it, so job must be short.
func (v *Visitor) ChangeMedia(ctx context.Context, job func(tx MediaTx) error) error {
	return v.telling(doing(v.changeMedia(ctx, job), "changing the media links"))
}

func (v *Visitor) changeMedia(ctx context.Context, job func(tx MediaTx) error) (err error) {
	conn, err := v.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	begin := "BEGIN"
	if v.uri == nil {
		// Not by what is read first: another process could have written since, and the transaction could not write any more.
		begin = "BEGIN IMMEDIATE"
		for _, pragma := range []string{fmt.Sprintf("PRAGMA busy_timeout = %d", visitBusyTimeout), "PRAGMA wal_autocheckpoint = 0"} {
			if _, err = conn.ExecContext(ctx, pragma); err != nil {
				return err
			}
		}
	}
	if _, err = conn.ExecContext(ctx, begin); err != nil {
		return err
	}
	// A transaction that has begun is ended, whatever becomes of ctx: its connection goes back to the pool.
	ended := context.WithoutCancel(ctx)
	tx := &visitorTx{ctx: ctx, conn: conn, placeholders: v.read.placeholders}
	if err = job(MediaTx{tx}); err == nil {
		err = tx.err
	}
	if err == nil {
		if _, err = conn.ExecContext(ended, "COMMIT"); err == nil {
			return nil
		}
	}
	_, rollback := conn.ExecContext(ended, "ROLLBACK")
	if tx.err == nil {
		return err // the job's own decision, or the commit's
	}
	return errors.Join(err, rollback)
}

// visitorTx is a visitor's transaction.
type visitorTx struct {
	ctx          context.Context
	conn         *sql.Conn
	placeholders func(string) string
	err          error // the first failed statement
}

func (t *visitorTx) now() time.Time { return time.Now() }

func (t *visitorTx) exec(query string, args ...any) (rows int64, err error) {
	if t.err != nil {
		return 0, t.err
	}
	result, err := t.conn.ExecContext(t.ctx, t.placeholders(query), args...)
	if err == nil {
		rows, err = result.RowsAffected()
	}
	t.err = err
	return rows, err
}

func (t *visitorTx) row(into []any, query string, args ...any) error {
	if t.err != nil {
		return t.err
	}
	err := t.conn.QueryRowContext(t.ctx, t.placeholders(query), args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	t.err = err
	return err
}
