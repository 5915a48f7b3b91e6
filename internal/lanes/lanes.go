package lanes

import (
	"context"
	"iter"
	"sync"
	"time"
)

// Lanes is a keyed scheduler. Its methods may be called from any goroutine, from work as well.
type Lanes[T any] struct {
	packing Packing[T]
	work    func(ctx context.Context, lane string, items []T) (done int, retryAfter time.Duration)
	batch   int

	mu       sync.Mutex
	workers  int
	ctx      context.Context // nil until Start
	draining bool
	lanes    Map[*lane]
	timers   map[*lane]*time.Timer // of lanes that wait for one
	first    *lane                 // the queue of ready lanes, linked through lane.next
	last     *lane
	running  int
	coming   bool  // one of them was hired and has not begun
	buffers  [][]T // of workers that have ended
	spare    *lane // lanes that are gone, linked through next, for those to come
	spares   int
	pending  int // lanes that Finish is awaited for; less by one for a moment when it comes before work returns
	items    int
	idle     chan struct{} // closed when draining and nothing is under way any more
}

type state uint8

const (
	ready   state = iota // in the queue
	busy                 // in the hands of a worker, or Finish is awaited
	waiting              // for its timer, or for Wake
)

// lane is kept small: there may be one for every room of a homeserver.
type lane struct {
	key    string
	packed []byte  // the items
	few    [8]byte // where those of most lanes are
	next   *lane
	prev   *lane // in the queue
	items  uint32
	given  uint32 // how many of them are being worked on
	state  state
	woken  bool // Wake came while the lane was busy
}

// New makes a scheduler that gives work one item at a time. At most workers (at least 1) calls of work run at once, and
// never two for the same lane.
//
// When work returns done, the item is over. Otherwise it stays the head of its lane and is given to work again after
// retryAfter; a retryAfter of zero or less means at once, after the other lanes that are ready.
func New[T any](packing Packing[T], workers int, work func(ctx context.Context, lane string, item T) (retryAfter time.Duration, done bool)) *Lanes[T] {
	return NewBatch(packing, workers, 1, func(ctx context.Context, lane string, items []T) (int, time.Duration) {
		retryAfter, done := work(ctx, lane, items[0])
		if done {
			return 1, 0
		}
		return 0, retryAfter
	})
}

// NewBatch is [New] for work that takes up to batch items of one lane at once. work returns how many of them, from the
// first on, are over; when those are not all, the rest stays in the lane and is tried again after retryAfter. work must
// not keep items after it returns, nor change them. Or it returns [Pending], and calls [Lanes.Finish] with the outcome
// once it knows it: the lane waits for that, but no worker does.
func NewBatch[T any](packing Packing[T], workers, batch int, work func(ctx context.Context, lane string, items []T) (done int, retryAfter time.Duration)) *Lanes[T] {
	return &Lanes[T]{packing: packing, work: work, workers: max(workers, 1), batch: max(batch, 1),
		timers: map[*lane]*time.Timer{}, idle: make(chan struct{})}
}

// Start lets the workers run. ctx is given to work; when it ends, no further item is taken up. Items may be added before
// Start. Only the first call counts.
func (l *Lanes[T]) Start(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx != nil {
		return
	}
	l.ctx = ctx
	l.hire()
}

// Pending is what work returns in the place of how many items are over, when that will be said by [Lanes.Finish].
const Pending = -1

// Outcome is what became of a lane's items: the same as work would have returned.
type Outcome struct {
	Lane       string
	Done       int
	RetryAfter time.Duration
}

// Finish says what became of the items of one lane or several, for each of which work returned [Pending].
func (l *Lanes[T]) Finish(outcomes ...Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending -= len(outcomes)
	for _, o := range outcomes {
		if ln, ok := l.lanes.Get(o.Lane); ok {
			l.finish(ln, o.Done, o.RetryAfter)
		}
	}
	l.hire()
	l.ended()
}

// Limit changes how many calls of work run at once (at least 1). Those that run already are not ended.
func (l *Lanes[T]) Limit(workers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.workers = max(workers, 1)
	l.hire()
}

// Add puts items at the end of a lane. It never blocks on work. After Drain it does nothing. The key is kept for as long as the
// lane is, so it should not be part of something larger.
func (l *Lanes[T]) Add(key string, items ...T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(key, items)
	l.hire()
}

// AddAll is Add for several lanes at once.
func (l *Lanes[T]) AddAll(lanes iter.Seq2[string, []T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, items := range lanes {
		l.add(key, items)
	}
	l.hire()
}

func (l *Lanes[T]) add(key string, items []T) {
	if l.draining || len(items) == 0 {
		return
	}
	ln, ok := l.lanes.Get(key)
	if !ok {
		ln = l.newLane(key)
		l.lanes.Set(key, ln)
		l.enqueue(ln)
	}
	for _, item := range items {
		ln.packed = l.packing.Append(ln.packed, item)
	}
	ln.items += uint32(len(items))
	l.items += len(items)
}

// Wake ends a lane's wait: its head is tried as soon as a worker is free. A lane that is busy is tried again at once
// even if the present try asks for a wait. A lane that does not wait is left alone.
func (l *Lanes[T]) Wake(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, ok := l.lanes.Get(key)
	if !ok || l.draining {
		return
	}
	switch ln.state {
	case waiting:
		l.wake(ln)
	case busy:
		ln.woken = true
	case ready:
	}
}

// Hurry puts a lane before all others that are ready. A lane that waits goes on waiting.
func (l *Lanes[T]) Hurry(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, ok := l.lanes.Get(key)
	if !ok || ln.state != ready || l.draining || ln == l.first {
		return
	}
	l.unqueue(ln)
	ln.next, l.first.prev, l.first = l.first, ln, ln
}

// Len says how many items there are, those under way included, and in how many lanes.
func (l *Lanes[T]) Len() (items, lanes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.items, l.lanes.Len()
}

// Busy says whether lanes wait for a worker.
func (l *Lanes[T]) Busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first != nil && l.running >= l.workers
}

// Drain takes up no further item, stops all waits, and waits until the running calls of work have returned, and every
// [Lanes.Finish] that is awaited has come, or ctx ends, whose error it then returns. What was not worked on is forgotten. Drain may be called again to wait on.
func (l *Lanes[T]) Drain(ctx context.Context) error {
	l.mu.Lock()
	if !l.draining {
		l.draining = true
		for _, timer := range l.timers {
			timer.Stop()
		}
		l.first, l.last = nil, nil
		l.ended()
	}
	l.mu.Unlock()
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxSpare is how many lanes are kept for those to come: in most, nothing waits for longer than a commit takes.
const maxSpare = 512

func (l *Lanes[T]) newLane(key string) *lane {
	ln := l.spare
	if ln == nil {
		ln = new(lane)
	} else {
		l.spare, ln.next = ln.next, nil
		l.spares--
	}
	ln.key, ln.packed = key, ln.few[:0]
	return ln
}

// remove is for a lane that nothing is left in.
func (l *Lanes[T]) remove(ln *lane) {
	l.lanes.Delete(ln.key)
	if l.spares < maxSpare {
		*ln = lane{next: l.spare}
		l.spare = ln
		l.spares++
	}
}

func (l *Lanes[T]) enqueue(ln *lane) {
	ln.state = ready
	if l.last == nil {
		l.first = ln
	} else {
		l.last.next, ln.prev = ln, l.last
	}
	l.last = ln
}

// unqueue takes a lane out of the queue of those that are ready.
func (l *Lanes[T]) unqueue(ln *lane) {
	if ln.prev == nil {
		l.first = ln.next
	} else {
		ln.prev.next = ln.next
	}
	if ln.next == nil {
		l.last = ln.prev
	} else {
		ln.next.prev = ln.prev
	}
	ln.next, ln.prev = nil, nil
}

// hire starts a worker when a lane is ready and the bound allows one more. One at a time: who begins hires the next, so that
// there are only as many as the lanes keep busy, and not one for every lane where work takes less time than a start.
func (l *Lanes[T]) hire() {
	if l.ctx == nil || l.draining || l.first == nil || l.coming || l.running >= l.workers || l.ctx.Err() != nil {
		return
	}
	l.running++
	l.coming = true
	go l.run()
}

func (l *Lanes[T]) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coming = false
	var items []T // of one turn after the other
	if n := len(l.buffers); n > 0 {
		items, l.buffers = l.buffers[n-1], l.buffers[:n-1]
	} else {
		items = make([]T, 0, l.batch)
	}
	for l.first != nil && !l.draining && l.ctx.Err() == nil && l.running <= l.workers {
		ln := l.first
		l.unqueue(ln)
		l.turn(ln, items)
	}
	l.buffers = append(l.buffers, items)
	l.running--
	l.ended()
}

// ended wakes Drain when nothing is under way any more.
func (l *Lanes[T]) ended() {
	if !l.draining || l.running > 0 || l.pending > 0 {
		return
	}
	select {
	case <-l.idle:
	default:
		close(l.idle)
	}
}

// turn gives the first items of one lane to work. The caller holds the lock; it is released while work runs.
func (l *Lanes[T]) turn(ln *lane, items []T) {
	ln.state, ln.woken = busy, false
	for at := 0; len(items) < l.batch && at < len(ln.packed); {
		item, size := l.packing.Next(ln.packed[at:])
		items, at = append(items, item), at+size
	}
	ln.given = uint32(len(items))
	l.hire()
	l.mu.Unlock()
	done, retryAfter := l.work(l.ctx, ln.key, items)
	l.mu.Lock()
	clear(items)
	if done == Pending {
		l.pending++ // the lane may be in other hands already
		return
	}
	l.finish(ln, done, retryAfter)
}

// finish takes what is over out of a lane and sees to the rest.
func (l *Lanes[T]) finish(ln *lane, done int, retryAfter time.Duration) {
	done = min(max(done, 0), int(ln.given))
	failed := done < int(ln.given)
	l.items -= done
	ln.items -= uint32(done)
	for range done {
		_, size := l.packing.Next(ln.packed)
		ln.packed = ln.packed[size:]
	}
	switch {
	case ln.items == 0:
		l.remove(ln)
	case l.draining:
	case failed && retryAfter > 0 && !ln.woken:
		l.pause(ln, retryAfter)
	default:
		l.enqueue(ln)
	}
}

// pause has a lane wait. A timer that fires although it was stopped, or belongs to an earlier pause, is not the one in timers.
func (l *Lanes[T]) pause(ln *lane, wait time.Duration) {
	ln.state = waiting
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		l.mu.Lock() // and timer is set
		defer l.mu.Unlock()
		if l.timers[ln] == timer && !l.draining {
			l.wake(ln)
		}
	})
	l.timers[ln] = timer
}

func (l *Lanes[T]) wake(ln *lane) {
	l.timers[ln].Stop()
	delete(l.timers, ln)
	l.enqueue(ln)
	l.hire()
}
