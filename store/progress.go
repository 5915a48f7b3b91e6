package store

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"time"
)

// maxTracked bounds how many events' rows have their progress in memory, which takes up to 32 bytes for each; the others
// are read again when they are worked on.
const maxTracked = 1 << 16

// rowWeight is what a row counts for besides its events.
const rowWeight = 4

// inboxRow is the progress of one row of the inbox.
type inboxRow struct {
	seq    int64
	lanes  []laneProgress
	laneOf []uint32 // by position of the element
	open   int      // lanes that are not done
	// The database may hold what progress, and what finished, says of this row.
	troubled, started bool
	moved             bool // finished is to be written
}

type laneProgress struct {
	name  uint32 // a hash, to tell a mistake
	last  uint32 // position of the lane's last element
	done  uint32 // everything before this position is finished
	dirty bool   // the trouble is to be written
	*trouble
}

// trouble is what there is to say of a lane's first unfinished element. It is never changed, but replaced.
type trouble struct {
	doubt    int64 // position of the element in doubt, or -1
	attempts int
	nextAt   int64
	cause    string
}

// noTrouble is that of most lanes.
var noTrouble = &trouble{doubt: -1}

func (l *laneProgress) finished() bool { return l.done > l.last }

var nameSeed = maphash.MakeSeed()

func hashName(lane string) uint32 { return uint32(maphash.String(nameSeed, lane)) }

func newInboxRow(seq int64, index *rowIndex) *inboxRow {
	row := &inboxRow{seq: seq, lanes: make([]laneProgress, len(index.lanes)), laneOf: make([]uint32, len(index.elements)), open: len(index.lanes)}
	for i, name := range index.lanes {
		row.lanes[i].name, row.lanes[i].trouble = hashName(name), noTrouble
	}
	for pos := range index.elements {
		lane := index.elements[pos].lane
		row.laneOf[pos], row.lanes[lane].last = lane, uint32(pos)
	}
	return row
}

func (row *inboxRow) weight() int { return rowWeight + len(row.laneOf) }

// Doubt marks the element as under way: commit this before anything about it leaves the process. After a crash it comes
// back from [Store.Backlog] with Doubt set.
func (tx *Tx) Doubt(lane string, ref Ref) error {
	return tx.mark("marking in doubt", lane, ref, func(t *trouble) { t.doubt = int64(ref.Pos) })
}

// Attempt counts a failed attempt at the element, which must be the lane's first unfinished one, and clears the doubt
// mark: the caller knows that it did not get through.
func (tx *Tx) Attempt(lane string, ref Ref, cause string, next time.Time) error {
	return tx.mark("counting an attempt", lane, ref, func(t *trouble) {
		t.doubt, t.nextAt, t.cause = -1, toMillis(next), toCause(cause)
		t.attempts++
	})
}

// Postpone ends an attempt at the element that does not count. It takes the mark of [Tx.Doubt] back, unless doubt says
// that it stays, because it is older than the attempt.
func (tx *Tx) Postpone(lane string, ref Ref, cause string, doubt bool) error {
	return tx.mark("postponing", lane, ref, func(t *trouble) {
		if t.cause = toCause(cause); !doubt {
			t.doubt = -1
		}
	})
}

// Finish marks the element, and all before it in this lane and row, as done. A row leaves the inbox when all its lanes
// are done. Finishing what is finished already does nothing.
func (tx *Tx) Finish(lane string, ref Ref) error {
	err := tx.mark("finishing", lane, ref, nil)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// mark changes a lane's progress in memory, to finished when change is nil; flush writes it before COMMIT, once for the
// whole group. ErrNotFound means that the element is finished.
func (tx *Tx) mark(what, lane string, ref Ref, change func(t *trouble)) error {
	if tx.over {
		return errOver
	}
	row, err := tx.inboxRow(ref.Seq)
	if err != nil {
		return doing(err, "%s: event %d of inbox row %d", what, ref.Pos, ref.Seq)
	}
	if int64(ref.Pos) >= int64(len(row.laneOf)) || row.lanes[row.laneOf[ref.Pos]].name != hashName(lane) {
		return fmt.Errorf("%s: inbox row %d has no event %d in lane %q", what, ref.Seq, ref.Pos, lane)
	}
	number := row.laneOf[ref.Pos]
	l := &row.lanes[number]
	if ref.Pos < l.done {
		return doing(ErrNotFound, "%s: event %d of inbox row %d", what, ref.Pos, ref.Seq)
	}
	tx.w.undo = append(tx.w.undo, undoing{row: row, lane: number, before: *l})
	if change == nil {
		l.done, l.trouble, l.dirty = ref.Pos+1, noTrouble, false // what progress says of it counts no more
		row.moved = true
	} else {
		changed := *l.trouble
		change(&changed)
		l.trouble, l.dirty = &changed, true
	}
	if l.finished() {
		row.open--
	}
	tx.w.dirty[ref.Seq] = row
	return nil
}

func (tx *Tx) inboxRow(seq int64) (*inboxRow, error) {
	if row, ok := tx.w.rows[seq]; ok {
		if row.open == 0 {
			return nil, ErrNotFound
		}
		return row, nil
	}
	var lanes []byte
	if err := tx.row([]any{&lanes}, `SELECT lanes FROM inbox WHERE seq = $1`, seq); err != nil {
		return nil, err
	}
	index, err := decodeIndex(lanes)
	if err != nil {
		return nil, err
	}
	row := newInboxRow(seq, index)
	if err = tx.readProgress(row); err != nil {
		tx.err = err
		return nil, err
	}
	tx.w.track(row)
	return row, nil
}

const (
	selectProgress = `SELECT seq, lane, done, doubt, attempts, next_at, cause FROM progress WHERE seq >= $1 AND seq <= $2`
	selectFinished = `SELECT seq, done FROM finished WHERE seq >= $1 AND seq <= $2`
)

func (tx *Tx) readProgress(row *inboxRow) error {
	rows := func(int64) *inboxRow { return row }
	if err := tx.each(func(r *sql.Rows) error { return scanFinished(r, rows) }, selectFinished, row.seq, row.seq); err != nil {
		return err
	}
	return tx.each(func(r *sql.Rows) error { return scanProgress(r, rows) }, selectProgress, row.seq, row.seq)
}

// scanFinished takes over what selectFinished says of a row. It comes before scanProgress.
func scanFinished(r *sql.Rows, rows func(seq int64) *inboxRow) error {
	var seq int64
	var done []byte
	if err := r.Scan(&seq, &done); err != nil {
		return err
	}
	row := rows(seq)
	if row == nil {
		return nil // it is not in the inbox any more
	}
	row.started = true
	numbers := indexReader{b: done}
	for i := range row.lanes {
		l := &row.lanes[i]
		if l.done = uint32(numbers.number(math.MaxUint32)); l.finished() {
			row.open--
		}
	}
	if numbers.bad || len(numbers.b) > 0 {
		return fmt.Errorf("what is finished of inbox row %d does not fit its %d lanes", seq, len(row.lanes))
	}
	return nil
}

// scanProgress takes over what selectProgress says of a lane.
func scanProgress(r *sql.Rows, rows func(seq int64) *inboxRow) error {
	var seq, lane, done int64
	t := new(trouble)
	if err := r.Scan(&seq, &lane, &done, &t.doubt, &t.attempts, &t.nextAt, &t.cause); err != nil {
		return err
	}
	row := rows(seq)
	if row == nil {
		return nil // it is not in the inbox any more
	}
	if lane < 0 || lane >= int64(len(row.lanes)) {
		return fmt.Errorf("progress of inbox row %d names lane %d, which is not there", seq, lane)
	}
	row.troubled = true
	if l := &row.lanes[lane]; uint32(done) >= l.done {
		was := l.finished()
		if l.done, l.trouble = uint32(done), t; l.finished() && !was {
			row.open--
		}
	}
	return nil
}

// track keeps the row in memory, and makes room first when there are too many.
func (w *writer) track(row *inboxRow) {
	for _, other := range w.rows {
		if w.tracked+row.weight() <= w.maxTracked {
			break
		}
		if w.dirty[other.seq] == nil {
			w.untrack(other)
		}
	}
	w.rows[row.seq] = row
	w.tracked += row.weight()
}

func (w *writer) untrack(row *inboxRow) {
	if _, ok := w.rows[row.seq]; ok {
		delete(w.rows, row.seq)
		w.tracked -= row.weight()
	}
}

// flush writes what the group's jobs left for it, as if each had written its own: progress, and rows of the outbox.
func (w *writer) flush() error {
	tx := &Tx{w: w, wrote: true}
	if err := tx.writeEnqueued(); err != nil {
		return err
	}
	for seq, row := range w.dirty {
		if err := w.flushRow(tx, seq, row); err != nil {
			return doing(err, "writing progress")
		}
	}
	if w.seen.due >= pruneSeenEvery {
		if _, err := tx.exec(`DELETE FROM seen WHERE seq < $1`, w.seen.pruneBelow); err != nil {
			return doing(err, "forgetting old events")
		}
	}
	return nil
}

// pruneSeenEvery: the rows of forgotten keys leave the database this many at a time.
const pruneSeenEvery = 64

func (w *writer) flushRow(tx *Tx, seq int64, row *inboxRow) error {
	if row.open == 0 {
		return w.deleteRow(tx, seq, row)
	}
	for i := range row.lanes {
		l := &row.lanes[i]
		if !l.dirty {
			continue
		}
		row.troubled = true
		_, err := tx.exec(`INSERT INTO progress (seq, lane, done, doubt, attempts, next_at, cause) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (seq, lane) DO UPDATE SET done = excluded.done, doubt = excluded.doubt, attempts = excluded.attempts,
			next_at = excluded.next_at, cause = excluded.cause`,
			seq, i, int64(l.done), l.doubt, l.attempts, l.nextAt, l.cause)
		if err != nil {
			return err
		}
	}
	if !row.moved {
		return nil
	}
	done := make([]byte, 0, 2*len(row.lanes))
	for i := range row.lanes {
		done = binary.AppendUvarint(done, uint64(row.lanes[i].done))
	}
	row.started = true
	_, err := tx.exec(`INSERT INTO finished (seq, done) VALUES ($1, $2) ON CONFLICT (seq) DO UPDATE SET done = excluded.done`, seq, done)
	return err
}

func (w *writer) deleteRow(tx *Tx, seq int64, row *inboxRow) error {
	for _, table := range []struct {
		has   bool
		query string
	}{
		{row.troubled, `DELETE FROM progress WHERE seq = $1`},
		{row.started, `DELETE FROM finished WHERE seq = $1`},
		{true, `DELETE FROM inbox WHERE seq = $1`},
	} {
		if !table.has {
			continue
		}
		if _, err := tx.exec(table.query, seq); err != nil {
			return err
		}
	}
	return nil
}

// settleRows makes memory follow the commit.
func (w *writer) settleRows() {
	for seq, row := range w.dirty {
		row.moved = false
		for i := range row.lanes {
			row.lanes[i].dirty = false
		}
		if row.open == 0 {
			w.untrack(row)
			w.store.cache.drop(seq)
		}
	}
	if w.seen.due >= pruneSeenEvery {
		w.seen.due = 0
	}
}
