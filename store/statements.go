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
	db         *sql.DB
	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

func (s *Store) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	s.read.mu.Lock()
	defer s.read.mu.Unlock()
	if st, ok := s.read.statements[query]; ok {
		return st, nil
	}
	st, err := s.read.db.PrepareContext(ctx, s.engine.placeholders(query))
	if err != nil {
		return nil, s.readError(err)
	}
	s.read.statements[query] = st
	return st, nil
}

// readError makes errors of the reading side comparable.
func (s *Store) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	}
	select {
	case <-s.closing:
		return ErrClosed
	default:
		return err
	}
}

// one reads one row; ErrNotFound when there is none.
func (s *Store) one(ctx context.Context, into []any, query string, args ...any) error {
	st, err := s.prepared(ctx, query)
	if err != nil {
		return err
	}
	return s.readError(st.QueryRowContext(ctx, args...).Scan(into...))
}

// each reads rows and calls scan for every one. It is for bounded results: scan must not use the store.
func (s *Store) each(ctx context.Context, scan func(rows *sql.Rows) error, query string, args ...any) error {
	st, err := s.prepared(ctx, query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return s.readError(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err = scan(rows); err != nil {
			return err
		}
	}
	return s.readError(rows.Err())
}

// doing wraps an error with what was being done.
func doing(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
