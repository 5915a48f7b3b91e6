package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/internal/failpoint"
)

const (
	maxGroupJobs  = 256
	maxGroupBytes = 8 << 20
)

// writer owns the writing connection and everything that must agree with what is committed. All of it belongs to the
// goroutine that runs [writer.run].
type writer struct {
	store      *Store
	engine     engine
	log        zerolog.Logger
	conn       *sql.Conn
	statements map[string]*sql.Stmt
	broken     error // set once: nothing can be committed any more

	waiting        []*request    // of CommitSoon, in the order in which they came
	gather, linger time.Duration // gatherFor, lingerFor
	gathered       time.Time     // when those that wait are to run
	lingered       time.Time     // when the open group is to be committed, whether or not somebody is in a hurry

	seen       *seenKeys
	rows       map[int64]*inboxRow // progress of live rows, as the open transaction sees it
	tracked    int                 // what they weigh
	maxTracked int                 // the constant
	lastSeq    int64

	// The group under way.
	open     bool // its transaction has begun
	epoch    Epoch
	done     []*request // its jobs that succeeded
	refused  []refusal  // and those that did not
	undo     []undoing  // puts memory back to what it was, from the last to the first
	hooks    []func()
	taken    []seenRow           // rows that the group added
	dirty    map[int64]*inboxRow // rows whose progress is to be written before COMMIT
	enqueued enqueued
	bytes    int

	packing []byte // what pack works in
}

// refusal is the error of a job. It may have failed because of what another of its group wrote, so it is answered once
// that holds.
type refusal struct {
	r   *request
	err error
}

// undoing puts memory back: fn, or else what a lane's progress was. There is one for each lane of a group, and no function made for it.
type undoing struct {
	fn     func()
	row    *inboxRow
	lane   uint32
	before laneProgress
}

func (u *undoing) run() {
	if u.fn != nil {
		u.fn()
		return
	}
	l := &u.row.lanes[u.lane]
	if l.finished() && !u.before.finished() {
		u.row.open++
	}
	*l = u.before
}

func newWriter(s *Store, e engine) *writer {
	return &writer{
		store: s, engine: e, log: s.opts.Log, statements: map[string]*sql.Stmt{}, gather: gatherFor, linger: lingerFor,
		seen: newSeenKeys(s.opts.SeenEvents), rows: map[int64]*inboxRow{}, maxTracked: maxTracked, dirty: map[int64]*inboxRow{},
	}
}

// run takes jobs until the store closes. The channels hold nothing, so that whoever is not taken sees the closing.
func (w *writer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if len(w.waiting) > 0 && (!w.open || w.gathered.Before(w.lingered)) {
			timer.Reset(time.Until(w.gathered))
		} else if w.open {
			timer.Reset(time.Until(w.lingered))
		}
		select {
		case r := <-w.store.jobs:
			w.hurry(r)
		case r := <-w.store.soon:
			if len(w.waiting) == 0 {
				w.gathered = time.Now().Add(w.gather)
			}
			w.waiting = append(w.waiting, r)
		case <-timer.C:
			w.leisure()
		case <-w.store.closing:
			w.commit()
			for _, r := range w.waiting {
				r.done <- ErrClosed
			}
			return
		}
	}
}

// leisure is for when nobody is in a hurry: it runs the jobs of CommitSoon that have gathered, and leaves their group open
// for a while to whoever comes with a job of Commit.
func (w *writer) leisure() {
	for len(w.waiting) > 0 && !time.Now().Before(w.gathered) {
		select {
		case r := <-w.store.jobs:
			w.hurry(r) // and then one of those that wait: another of Commit may always be there already
		default:
		}
		r := w.waiting[0]
		w.waiting[0] = nil
		if w.waiting = w.waiting[1:]; len(w.waiting) == 0 {
			w.waiting = nil
		}
		if w.take(r); w.full() {
			w.commit()
		}
		w.lingered = time.Now().Add(w.linger)
	}
	if w.open && !time.Now().Before(w.lingered) {
		w.commit()
	}
}

// hurry runs a job of Commit, and others of Commit that wait already, and commits.
func (w *writer) hurry(r *request) {
	for more := true; more; {
		w.take(r)
		if more = w.open && !w.full(); more {
			select {
			case r = <-w.store.jobs:
			default:
				more = false
			}
		}
	}
	w.commit()
}

func (w *writer) full() bool { return len(w.done) >= maxGroupJobs || w.bytes >= maxGroupBytes }

// take runs a job in the group's transaction, which it begins if there is none. When the job fails, what the group did
// before is still there afterwards, or is committed already.
func (w *writer) take(r *request) {
	if w.broken != nil {
		r.done <- w.broken
		return
	}
	if err := r.ctx.Err(); err != nil {
		r.done <- err
		return
	}
	if err := w.ready(); err != nil {
		r.done <- err
		return
	}
	undo, hooks, taken := len(w.undo), len(w.hooks), len(w.taken)
	wrote, err := w.one(r)
	switch {
	case err == nil:
		w.done = append(w.done, r)
		return
	case !wrote:
		w.undoTo(undo)
		w.hooks, w.taken = w.hooks[:hooks], w.taken[:taken]
	}
	w.refused = append(w.refused, refusal{r, err})
	switch {
	case len(w.done) == 0:
		w.abandon()
		w.answer(nil)
	case wrote:
		w.redo()
	}
}

// ready begins the group's transaction if that has not been done.
func (w *writer) ready() (err error) {
	if w.open {
		return nil
	}
	if w.epoch, err = w.begin(); err != nil {
		w.store.tally.failed.Add(1)
		return fmt.Errorf("beginning a commit: %w", err)
	}
	w.open = true
	return nil
}

// one runs a job, and tells whether it came to the database.
func (w *writer) one(r *request) (wrote bool, err error) {
	if r.epoch != w.epoch {
		return false, ErrFenced
	}
	tx := newTx(w)
	err = call(tx, r.job)
	tx.closeRows()
	tx.over = true
	if err == nil {
		// The job may have looked away from a failed statement; the database may not have.
		err = tx.err
	}
	return tx.wrote, err
}

// redo undoes the group, because a job of it failed, runs those that had succeeded again, and commits. Savepoints would
// save that; but each costs every job something (on PostgreSQL a round trip), and failures are rare.
func (w *writer) redo() {
	for again := true; again; {
		jobs := w.done
		w.abandon()
		if err := w.ready(); err != nil {
			w.done = jobs
			w.answer(err)
			return
		}
		again = false
		for i, r := range jobs {
			if _, err := w.one(r); err == nil {
				w.done = append(w.done, r)
				continue
			} else {
				w.refused = append(w.refused, refusal{r, err})
			}
			w.done, again = append(w.done, jobs[i+1:]...), true
			break
		}
	}
	w.commit()
}

// commit ends the group.
func (w *writer) commit() {
	if !w.open {
		return
	}
	if len(w.done) == 0 {
		w.abandon()
		w.answer(nil)
		return
	}
	began := time.Now()
	enqueued := len(w.enqueued.rows)
	if err := w.flush(); err != nil {
		if enqueued == 0 {
			w.store.tally.failed.Add(1)
			w.fail(err)
			return
		}
		// Perhaps because of one row, for which the others must not suffer.
		w.enqueued.direct = true
		w.redo()
		w.enqueued.direct = false
		return
	}
	failpoint.Before("commit")
	err := failpoint.Fails("commit")
	if err == nil {
		err = w.exec(w.engine.commit())
	}
	if err != nil {
		w.rollback()
		committed, resolveErr := w.resolve(err)
		if resolveErr != nil {
			w.broken = fmt.Errorf("%w: %w", ErrUnknownOutcome, resolveErr)
			err = w.broken
		}
		if !committed {
			w.store.tally.failed.Add(1)
			w.undoTo(0)
			w.forget()
			w.answer(fmt.Errorf("committing: %w", err))
			return
		}
	}
	failpoint.After("commit")
	w.store.tally.committed(len(w.done), began)
	w.committed()
}

// resolve asks what became of a COMMIT that failed, until the store closes.
func (w *writer) resolve(cause error) (committed bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan struct{})
	defer close(asked)
	go func() {
		select {
		case <-w.store.closing:
			cancel()
		case <-asked:
		}
	}()
	return w.engine.resolve(ctx, cause)
}

func call(tx *Tx, job func(tx *Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a commit: %v\n%s", p, debug.Stack())
		}
	}()
	return job(tx)
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

// fail ends a group that cannot be committed: everybody gets the error.
func (w *writer) fail(err error) {
	done := w.done
	w.abandon()
	w.done = done
	w.answer(err)
}

// abandon undoes what the group did, in the database and in memory. Nobody is answered.
func (w *writer) abandon() {
	w.undoTo(0)
	w.rollback()
	w.forget()
	w.done = nil
}

// answer tells what became of the group's jobs: err of those that succeeded.
func (w *writer) answer(err error) {
	for _, r := range w.done {
		r.done <- err
	}
	for _, f := range w.refused {
		f.r.done <- f.err
	}
	clear(w.done)
	clear(w.refused)
	w.done, w.refused = w.done[:0], w.refused[:0]
}

func (w *writer) undoTo(n int) {
	for i := len(w.undo) - 1; i >= n; i-- {
		w.undo[i].run()
	}
	clear(w.undo[n:])
	w.undo = w.undo[:n]
}

// committed makes memory follow the database, runs the hooks and answers.
func (w *writer) committed() {
	w.settleRows() // first: what push finds to forget is not yet deleted
	for _, row := range w.taken {
		w.seen.push(row)
	}
	for _, hook := range w.hooks {
		w.runHook(hook)
	}
	bytes := w.bytes
	w.forget()
	w.answer(nil)
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

// forget makes room for the next group.
func (w *writer) forget() {
	clear(w.undo)
	clear(w.hooks)
	clear(w.taken)
	w.undo, w.hooks, w.taken = w.undo[:0], w.hooks[:0], w.taken[:0]
	clear(w.dirty)
	w.enqueued = enqueued{direct: w.enqueued.direct}
	w.store.rooms.end()
	w.open, w.bytes = false, 0
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
