package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
)

const (
	maxGroupJobs  = 256
	maxGroupBytes = 8 << 20
)

// Commit runs job inside a database transaction and returns nil when what it did is durable. When job returns an error
// (or panics, which becomes an error), what it did is undone and the error is returned.
//
// Jobs run one at a time on the writer's goroutine, in the order in which they came; several share one database
// transaction, and one that fails does not harm the others. A job must not wait for anything: no network, no Commit of
// its own, and reads through tx, since the Store's reads do not see what is not yet committed. What it changes outside
// the database belongs into [Tx.AfterCommit].
//
// A job whose ctx is done before it starts is dropped with ctx.Err(); one that has started is waited for. ErrFenced means
// that another process holds the store; ErrClosed that Close was called.
func (s *Store) Commit(ctx context.Context, epoch Epoch, job func(tx *Tx) error) error {
	return s.commit(ctx, s.jobs, epoch, job)
}

// commitSoon is how long [Store.CommitSoon] waits for company.
const commitSoon = 5 * time.Millisecond

// CommitSoon is [Store.Commit] for a job that nobody is in a hurry for: it waits a few milliseconds, so that it shares
// its database transaction with others of its kind and keeps out of the way of Commit. Under load that is worth a lot:
// an intake that waits for fewer commits of its own handlers is faster by half.
func (s *Store) CommitSoon(ctx context.Context, epoch Epoch, job func(tx *Tx) error) error {
	return s.commit(ctx, s.soon, epoch, job)
}

func (s *Store) commit(ctx context.Context, to chan<- *request, epoch Epoch, job func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{ctx: ctx, epoch: epoch, job: job, done: make(chan error, 1)}
	select {
	case to <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}

type request struct {
	ctx   context.Context
	epoch Epoch
	job   func(tx *Tx) error
	done  chan error // holds one
}

// writer owns the writing connection and everything that must agree with what is committed. All of it belongs to the
// goroutine that runs [writer.run].
type writer struct {
	store      *Store
	engine     engine
	log        zerolog.Logger
	conn       *sql.Conn
	statements map[string]*sql.Stmt
	broken     error // set once: nothing can be committed any more

	waiting []*request // of CommitSoon, in the order in which they came
	due     time.Time  // when the first of them has waited long enough

	seen       *seenKeys
	rows       map[int64]*inboxRow // progress of live rows, as the open transaction sees it
	tracked    int                 // what they weigh
	maxTracked int                 // the constant
	lastSeq    int64

	// The group under way.
	undo     []func() // put memory back to what it was, run from the last to the first
	hooks    []func()
	taken    []seenRow           // rows that the group added
	dirty    map[int64]*inboxRow // rows whose progress is to be written before COMMIT
	toppedUp bool
	bytes    int
	// saved: the savepoint exists. wrote: the transaction holds something of a job that succeeded.
	saved, wrote bool
}

func newWriter(s *Store, e engine) *writer {
	return &writer{
		store: s, engine: e, log: s.opts.Log, statements: map[string]*sql.Stmt{},
		seen: newSeenKeys(s.opts.SeenEvents), rows: map[int64]*inboxRow{}, maxTracked: maxTracked, dirty: map[int64]*inboxRow{},
	}
}

// run takes jobs until the store closes. The channels hold nothing, so that whoever is not taken sees the closing.
func (w *writer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if len(w.waiting) > 0 {
			timer.Reset(time.Until(w.due))
		}
		select {
		case r := <-w.store.jobs:
			w.group(r)
		case r := <-w.store.soon:
			if len(w.waiting) == 0 {
				w.due = time.Now().Add(commitSoon)
			}
			w.waiting = append(w.waiting, r)
		case <-timer.C:
			if r := w.next(); r != nil {
				w.group(r)
			}
		case <-w.store.closing:
			answer(w.waiting, ErrClosed)
			return
		}
	}
}

// group runs first and whatever else is waiting in one transaction.
func (w *writer) group(first *request) {
	if w.broken != nil {
		first.done <- w.broken
		return
	}
	if err := first.ctx.Err(); err != nil {
		first.done <- err
		return
	}
	epoch, err := w.begin()
	if err != nil {
		first.done <- fmt.Errorf("beginning a commit: %w", err)
		return
	}
	// A job that failed may have done so because of what another of the group wrote: it is answered once that holds.
	var done []*request
	refused := map[*request]error{}
	defer func() {
		for r, err := range refused {
			r.done <- err
		}
	}()
	r := first
	for n := 1; ; n++ {
		if err = w.one(r, epoch); err == nil {
			done = append(done, r)
		} else if refused[r] = err; errors.Is(err, errGroupLost) {
			w.fail(done, err)
			return
		}
		if n == maxGroupJobs || w.bytes >= maxGroupBytes {
			break
		}
		if r = w.next(); r == nil {
			break
		}
	}
	if len(done) == 0 {
		w.rollback()
		return
	}
	if err = w.flush(); err != nil {
		w.fail(done, fmt.Errorf("writing progress: %w", err))
		return
	}
	if err = w.exec(w.engine.commit()); err != nil {
		w.rollback()
		committed, resolveErr := w.engine.resolve(err)
		if resolveErr != nil {
			w.broken = fmt.Errorf("%w: %w", ErrUnknownOutcome, resolveErr)
			err = w.broken
		}
		if !committed {
			w.undoTo(0)
			w.reset()
			answer(done, fmt.Errorf("committing: %w", err))
			return
		}
	}
	w.committed(done)
}

// next gives what goes into the present group: whoever is in a hurry first, and those who wait once they are due.
func (w *writer) next() *request {
	select {
	case r := <-w.store.jobs:
		return r
	default:
	}
	if len(w.waiting) == 0 || time.Now().Before(w.due) {
		return nil
	}
	r := w.waiting[0]
	w.waiting[0] = nil
	if w.waiting = w.waiting[1:]; len(w.waiting) == 0 {
		w.waiting = nil
	}
	return r
}

// errGroupLost: the whole transaction is gone, with what the other jobs of the group wrote.
var errGroupLost = errors.New("the transaction was lost")

// one runs one job. An error is the job's own and its work is undone, or it is errGroupLost.
func (w *writer) one(r *request, epoch Epoch) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if r.epoch != epoch {
		return ErrFenced
	}
	undo, hooks, taken := len(w.undo), len(w.hooks), len(w.taken)
	tx := &Tx{w: w}
	err := call(tx, r.job)
	tx.over = true
	if err == nil && tx.err != nil {
		// The job looked away from a failed statement; the database may not have.
		err = tx.err
	}
	if err == nil {
		w.wrote = w.wrote || tx.wrote
		return nil
	}
	if errors.Is(tx.err, errGroupLost) {
		return tx.err
	}
	w.undoTo(undo)
	w.hooks, w.taken = w.hooks[:hooks], w.taken[:taken]
	// A lock taken inside a savepoint goes with it.
	w.toppedUp = false
	if !tx.wrote {
		return err
	}
	if !w.wrote {
		// Nothing else is in the transaction: begin again.
		w.rollback()
		if w.conn == nil {
			return fmt.Errorf("%w (%w)", err, errGroupLost)
		}
		if again, beginErr := w.begin(); beginErr != nil {
			return fmt.Errorf("%w (%w): %w", err, errGroupLost, beginErr)
		} else if again != epoch {
			return fmt.Errorf("%w (%w)", ErrFenced, errGroupLost)
		}
		return err
	}
	if rollbackErr := w.exec("ROLLBACK TO SAVEPOINT job"); rollbackErr != nil {
		return fmt.Errorf("%w (%w): %w", err, errGroupLost, rollbackErr)
	}
	return err
}

func call(tx *Tx, job func(tx *Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a commit: %v\n%s", p, debug.Stack())
		}
	}()
	return job(tx)
}

// protect is called before a job's first statement. The first job that writes needs no savepoint: if it fails, the
// transaction holds nothing else.
func (w *writer) protect() error {
	switch {
	case !w.wrote:
		return nil
	case w.saved:
		return w.exec("RELEASE SAVEPOINT job; SAVEPOINT job")
	default:
		w.saved = true
		return w.exec("SAVEPOINT job")
	}
}

// begin opens the transaction, on a new connection when the old one is lost: nothing has run yet.
func (w *writer) begin() (Epoch, error) {
	for attempt := 0; ; attempt++ {
		if w.conn == nil {
			conn, err := w.engine.connect(context.Background())
			if err != nil {
				return 0, err
			}
			w.conn = conn
		}
		epoch, err := w.engine.begin(w)
		if err == nil {
			return epoch, nil
		}
		if w.rollback(); w.conn != nil || attempt > 0 {
			return 0, err
		}
	}
}

// rollback ends the transaction, if there is one, and drops the connection if it is not usable any more.
func (w *writer) rollback() {
	w.saved, w.wrote, w.toppedUp, w.bytes = false, false, false, 0
	if w.conn == nil {
		return
	}
	err := w.exec("ROLLBACK")
	if err == nil || w.conn.PingContext(context.Background()) == nil {
		return // or there was no transaction: SQLite ends it by itself on some errors
	}
	w.disconnect()
}

// disconnect forgets the connection and what was learnt over it.
func (w *writer) disconnect() {
	for _, st := range w.statements {
		_ = st.Close()
	}
	clear(w.statements)
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn }) // so that the pool does not keep it
	_ = w.conn.Close()
	w.conn = nil
	w.rows, w.tracked = map[int64]*inboxRow{}, 0
}

// fail ends a group that was not committed: memory is put back, everybody gets the error.
func (w *writer) fail(done []*request, err error) {
	w.undoTo(0)
	w.rollback()
	w.reset()
	answer(done, err)
}

func answer(requests []*request, err error) {
	for _, r := range requests {
		r.done <- err
	}
}

func (w *writer) undoTo(n int) {
	for i := len(w.undo) - 1; i >= n; i-- {
		w.undo[i]()
	}
	clear(w.undo[n:])
	w.undo = w.undo[:n]
}

// committed makes memory follow the database, runs the hooks and answers.
func (w *writer) committed(done []*request) {
	for _, row := range w.taken {
		w.seen.push(row)
	}
	w.settleRows()
	for _, hook := range w.hooks {
		w.runHook(hook)
	}
	bytes := w.bytes
	w.reset()
	answer(done, nil)
	w.engine.settle(w, bytes)
}

func (w *writer) runHook(hook func()) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("Panic in an AfterCommit hook")
		}
	}()
	hook()
}

// reset forgets the group.
func (w *writer) reset() {
	clear(w.undo)
	clear(w.hooks)
	clear(w.taken)
	w.undo, w.hooks, w.taken = w.undo[:0], w.hooks[:0], w.taken[:0]
	clear(w.dirty)
	w.saved, w.wrote, w.toppedUp, w.bytes = false, false, false, 0
}

// exec runs a statement without arguments.
func (w *writer) exec(query string) error {
	if w.conn == nil {
		return driver.ErrBadConn
	}
	_, err := w.conn.ExecContext(context.Background(), query)
	return err
}

// statement gives the prepared form of a query. No context: the drivers would start a goroutine for each call.
func (w *writer) statement(query string) (*sql.Stmt, error) {
	if st, ok := w.statements[query]; ok {
		return st, nil
	}
	if w.conn == nil {
		return nil, driver.ErrBadConn
	}
	st, err := w.conn.PrepareContext(context.Background(), w.engine.placeholders(query))
	if err != nil {
		return nil, err
	}
	w.statements[query] = st
	return st, nil
}
