package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
)

// backlogPage is how many rows are read at a time: no read stays open while the caller works.
const backlogPage = 200

// Backlog gives everything that is not finished, rows in the order of their commits. It is for the start of a
// process, before anything is finished.
func (s *Store) Backlog(ctx context.Context, fn func(LaneRefs) error) error {
	for after := int64(0); ; {
		page, err := s.backlogPage(ctx, after)
		if err != nil {
			return doing(err, "reading the inbox")
		}
		if len(page) == 0 {
			return nil
		}
		for _, row := range page {
			for i, refs := range row.index.refs(row.progress.seq) {
				if refs, ok := row.progress.lanes[i].remaining(refs); ok {
					if err = fn(refs); err != nil {
						return err
					}
				}
			}
			after = row.progress.seq
		}
	}
}

type backlogRow struct {
	index    *rowIndex
	progress *inboxRow
}

func (s *Store) backlogPage(ctx context.Context, after int64) ([]backlogRow, error) {
	var page []backlogRow
	bySeq := map[int64]*inboxRow{}
	err := s.each(ctx, func(rows *sql.Rows) error {
		var seq int64
		var lanes []byte
		if err := rows.Scan(&seq, &lanes); err != nil {
			return err
		}
		index, err := decodeIndex(lanes)
		if err != nil {
			return fmt.Errorf("row %d: %w", seq, err)
		}
		row := backlogRow{index, newInboxRow(seq, index)}
		page, bySeq[seq] = append(page, row), row.progress
		return nil
	}, `SELECT seq, lanes FROM inbox WHERE seq > $1 ORDER BY seq LIMIT $2`, after, backlogPage)
	if err != nil || len(page) == 0 {
		return nil, err
	}
	progress := func(seq int64) *inboxRow { return bySeq[seq] }
	first, last := page[0].progress.seq, page[len(page)-1].progress.seq
	err = s.each(ctx, func(rows *sql.Rows) error { return scanFinished(rows, progress) }, selectFinished, first, last)
	if err != nil {
		return nil, err
	}
	err = s.each(ctx, func(rows *sql.Rows) error { return scanProgress(rows, progress) }, selectProgress, first, last)
	return page, err
}

// remaining cuts off what is finished.
func (l *laneProgress) remaining(refs LaneRefs) (LaneRefs, bool) {
	for len(refs.Refs) > 0 && refs.Refs[0].Pos < l.done {
		refs.Refs = refs.Refs[1:]
	}
	if len(refs.Refs) == 0 {
		return refs, false
	}
	refs.Doubt = l.doubt == int64(refs.Refs[0].Pos)
	refs.Attempts, refs.Cause = l.attempts, fromColumn(l.cause)
	refs.NextAt = fromMillis(l.nextAt)
	return refs, true
}

// Element reads an element of the inbox; ErrNotFound when its row is finished.
func (s *Store) Element(ctx context.Context, ref Ref) (Element, error) {
	row, err := s.cache.get(ref.Seq, func() (*cachedRow, error) { return s.loadRow(ctx, ref.Seq) })
	if err != nil {
		return Element{}, doing(err, "reading inbox row %d", ref.Seq)
	}
	if int64(ref.Pos) >= int64(len(row.index.elements)) {
		return Element{}, fmt.Errorf("reading inbox row %d: it has no event %d", ref.Seq, ref.Pos)
	}
	e := row.index.element(row.body, ref.Pos)
	if row.loaded {
		// It may be read again for another lane: elements must not keep a copy of the whole row each.
		e.Raw = bytes.Clone(e.Raw)
	}
	return e, nil
}

func (s *Store) loadRow(ctx context.Context, seq int64) (*cachedRow, error) {
	var lanes, body []byte
	if err := s.one(ctx, []any{&lanes, &body}, `SELECT lanes, body FROM inbox WHERE seq = $1`, seq); err != nil {
		return nil, err
	}
	index, err := decodeIndex(lanes)
	if err != nil {
		return nil, err
	}
	if index.packed {
		if body, err = unpack(body, index.body); err != nil {
			return nil, err
		}
	}
	if index.body != uint64(len(body)) {
		return nil, fmt.Errorf("%w: the body has %d bytes, the index says %d", errIndex, len(body), index.body)
	}
	return &cachedRow{seq: seq, index: index, body: body, loaded: true}, nil
}

// InboxStats says how full the inbox is.
func (s *Store) InboxStats(ctx context.Context) (Stats, error) {
	var st Stats
	err := s.one(ctx, []any{&st.Rows, &st.Events, moment{&st.Oldest}},
		`SELECT COUNT(*), CAST(COALESCE(SUM(events), 0) AS BIGINT), COALESCE(MIN(received), 0) FROM inbox`)
	return st, doing(err, "counting the inbox")
}
