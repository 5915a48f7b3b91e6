package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// reader runs queries on the reading connections, each prepared once.
type reader struct {
	db           *sql.DB
	placeholders func(query string) string
	closing      <-chan struct{}

	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

func newReader(db *sql.DB, placeholders func(string) string, closing <-chan struct{}) *reader {
	return &reader{db: db, placeholders: placeholders, closing: closing, statements: map[string]*sql.Stmt{}}
}

func (r *reader) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st, ok := r.statements[query]; ok {
		return st, nil
	}
	st, err := r.db.PrepareContext(ctx, r.placeholders(query))
	if err != nil {
		return nil, r.comparable(err)
	}
	r.statements[query] = st
	return st, nil
}

// comparable makes errors of the reading side comparable.
func (r *reader) comparable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	}
	select {
	case <-r.closing:
		return ErrClosed
	default:
		return err
	}
}

// one reads one row; ErrNotFound when there is none.
func (r *reader) one(ctx context.Context, into []any, query string, args ...any) error {
	st, err := r.prepared(ctx, query)
	if err != nil {
		return err
	}
	return r.comparable(st.QueryRowContext(ctx, args...).Scan(into...))
}

// each reads rows and calls scan for every one. It is for bounded results: scan must not use the store.
func (r *reader) each(ctx context.Context, scan func(rows *sql.Rows) error, query string, args ...any) error {
	st, err := r.prepared(ctx, query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return r.comparable(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err = scan(rows); err != nil {
			return err
		}
	}
	return r.comparable(rows.Err())
}

func (s *Store) one(ctx context.Context, into []any, query string, args ...any) error {
	return s.read.one(ctx, into, query, args...)
}

func (s *Store) each(ctx context.Context, scan func(rows *sql.Rows) error, query string, args ...any) error {
	return s.read.each(ctx, scan, query, args...)
}

// doing wraps an error with what was being done.
func doing(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
