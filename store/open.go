package store

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"sync/atomic"
)

// Store is an open store. Its methods may be called from any goroutine.
type Store struct {
	opts   Options
	engine engine
	epoch  Epoch
	read   *reader
	cache  *rowCache
	rooms  *roomMemory // nil on PostgreSQL
	jobs   chan *request
	soon   chan *request // of CommitSoon
	tally  tally

	mediaRevocations atomic.Uint64 // commits of this process
	marks            marks         // of outdated devices
	drops            marks         // of dropped room keys, by room or by whose devices have changed

	closeOnce  sync.Once
	closing    chan struct{}
	closeError error
	running    sync.WaitGroup
}

// Epoch counts the processes that have held the store: each [Open] takes the next one.
type Epoch int64

// Open opens the store, brings its schema up to date, and takes it over: from its return on, commits of a process that
// held it before end with [ErrFenced].
//
// uri is sqlite:PATH (relative, or absolute as sqlite:/path or sqlite:///path) or a postgres:// URI. A SQLite database
// that another process holds is [ErrInUse]. No error contains a password.
func Open(ctx context.Context, uri string, opts Options) (*Store, error) {
	s := &Store{
		opts: opts.withDefaults(), cache: newRowCache(rowCacheBytes),
		jobs: make(chan *request), soon: make(chan *request), closing: make(chan struct{}),
	}
	path, isSQLite, err := sqlitePath(uri)
	if err != nil {
		return nil, err
	}
	if isSQLite {
		s.rooms = newRoomMemory()
		s.engine, err = openSQLite(ctx, path, s.opts.Log)
	} else {
		s.engine, err = openPostgres(ctx, uri, s.opts.Log)
	}
	if err != nil {
		return nil, err
	}
	s.read = newReader(s.engine.reader(), s.engine.placeholders, s.closing)
	w := newWriter(s, s.engine)
	if err = w.start(ctx); err != nil {
		if w.conn != nil {
			_ = w.conn.Close()
		}
		_ = s.engine.close()
		return nil, err
	}
	s.running.Go(func() {
		w.run()
		if w.conn != nil {
			_ = w.conn.Close()
		}
	})
	s.running.Go(s.pruneHourly)
	return s, nil
}

// Epoch is the one that this process holds, for [Store.Commit].
func (s *Store) Epoch() Epoch { return s.epoch }

// Close waits for the commit under way and closes the database. Commits that have not started end with ErrClosed.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.running.Wait()
		s.closeError = doing(s.engine.close(), "closing the database")
	})
	return s.closeError
}

// start takes the epoch and reads what the writer keeps in memory.
func (w *writer) start(ctx context.Context) (err error) {
	if w.conn, err = w.engine.connect(ctx); err != nil {
		return err
	}
	if w.store.epoch, err = w.engine.takeEpoch(ctx, w.conn); err != nil {
		return doing(err, "taking over the store")
	}
	s := w.store
	var lastInbox, lastSeen int64
	err = s.one(ctx, []any{&lastInbox, &lastSeen},
		`SELECT COALESCE((SELECT MAX(seq) FROM inbox), 0), COALESCE((SELECT MAX(seq) FROM seen), 0)`)
	if err != nil {
		return doing(err, "reading the inbox")
	}
	w.lastSeq = max(lastInbox, lastSeen)
	return doing(w.loadSeen(ctx, lastSeen), "reading the events seen")
}

// loadSeen reads the newest keys, a page at a time from the newest row backwards.
func (w *writer) loadSeen(ctx context.Context, last int64) error {
	const page = 1000
	var rows []seenRow
	count := 0
	for below := last + 1; count < w.seen.limit; {
		n := 0
		err := w.store.each(ctx, func(r *sql.Rows) error {
			var row seenRow
			if err := r.Scan(&row.seq, &row.received, &row.hashes); err != nil {
				return err
			}
			n++
			below, count = row.seq, count+len(row.hashes)/hashSize
			rows = append(rows, row)
			return nil
		}, `SELECT seq, received, hashes FROM seen WHERE seq < $1 ORDER BY seq DESC LIMIT $2`, below, page)
		if err != nil {
			return err
		}
		if n < page {
			break
		}
	}
	for _, row := range slices.Backward(rows) {
		w.seen.learn(row)
	}
	return nil
}
