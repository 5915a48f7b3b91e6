package lanes

import (
	"context"
	"sync"
	"time"
)

// Lanes is a keyed scheduler. Its methods may be called from any goroutine, from work as well.
type Lanes[T any] struct {
	work    func(ctx context.Context, lane string, items []T) (done int, retryAfter time.Duration)
	workers int
	batch   int

	mu       sync.Mutex
	ctx      context.Context // nil until Start
	draining bool
	lanes    map[string]*lane[T]
	first    *lane[T] // the queue of ready lanes, linked through lane.next
	last     *lane[T]
	running  int
	items    int
	idle     chan struct{} // closed when draining and the last worker has ended
}

type state uint8

const (
	ready   state = iota // in the queue
	busy                 // in the hands of a worker
	waiting              // for its timer, or for Wake
)

type lane[T any] struct {
	key   string
	items []T
	state state
	woken bool // Wake came while the lane was busy
	timer *time.Timer
	turn  uint64 // tells a timer that fired late from the present one
	next  *lane[T]
}

// New makes a scheduler that gives work one item at a time. At most workers (at least 1) calls of work run at once, and
// never two for the same lane.
//
// When work returns done, the item is over. Otherwise it stays the head of its lane and is given to work again after
// retryAfter; a retryAfter of zero or less means at once, after the other lanes that are ready.
func New[T any](workers int, work func(ctx context.Context, lane string, item T) (retryAfter time.Duration, done bool)) *Lanes[T] {
	return NewBatch(workers, 1, func(ctx context.Context, lane string, items []T) (int, time.Duration) {
		retryAfter, done := work(ctx, lane, items[0])
		if done {
			return 1, 0
		}
		return 0, retryAfter
	})
}

// NewBatch is [New] for work that takes up to batch items of one lane at once. work returns how many of them, from the
// first on, are over; when those are not all, the rest stays in the lane and is tried again after retryAfter. work must
// not keep items after it returns, nor change them.
func NewBatch[T any](workers, batch int, work func(ctx context.Context, lane string, items []T) (done int, retryAfter time.Duration)) *Lanes[T] {
	return &Lanes[T]{
		work:    work,
		workers: max(workers, 1),
		batch:   max(batch, 1),
		lanes:   make(map[string]*lane[T]),
		idle:    make(chan struct{}),
	}
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

// Add puts items at the end of a lane. It never blocks on work. After Drain it does nothing.
func (l *Lanes[T]) Add(key string, items ...T) {
	if len(items) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		return
	}
	ln := l.lanes[key]
	if ln == nil {
		ln = &lane[T]{key: key}
		l.lanes[key] = ln
		l.enqueue(ln)
	}
	ln.items = append(ln.items, items...)
	l.items += len(items)
	l.hire()
}

// Wake ends a lane's wait: its head is tried as soon as a worker is free. A lane that is busy is tried again at once
// even if the present try asks for a wait. A lane that does not wait is left alone.
func (l *Lanes[T]) Wake(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lanes[key]
	if ln == nil || l.draining {
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

// Len says how many items there are, those under way included, and in how many lanes.
func (l *Lanes[T]) Len() (items, lanes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.items, len(l.lanes)
}

// Drain takes up no further item, stops all waits, and waits until the running calls of work have returned or ctx ends,
// whose error it then returns. What was not worked on is forgotten. Drain may be called again to wait on.
func (l *Lanes[T]) Drain(ctx context.Context) error {
	l.mu.Lock()
	if !l.draining {
		l.draining = true
		for _, ln := range l.lanes {
			if ln.timer != nil {
				ln.timer.Stop()
			}
		}
		l.first, l.last = nil, nil
		if l.running == 0 {
			close(l.idle)
		}
	}
	l.mu.Unlock()
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Lanes[T]) enqueue(ln *lane[T]) {
	ln.state = ready
	if l.last == nil {
		l.first = ln
	} else {
		l.last.next = ln
	}
	l.last = ln
}

// hire starts a worker when a lane is ready and the bound allows one more.
func (l *Lanes[T]) hire() {
	if l.ctx == nil || l.draining || l.first == nil || l.running >= l.workers || l.ctx.Err() != nil {
		return
	}
	l.running++
	go l.run()
}

func (l *Lanes[T]) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.first != nil && !l.draining && l.ctx.Err() == nil {
		ln := l.first
		l.first = ln.next
		if l.first == nil {
			l.last = nil
		}
		ln.next = nil
		l.turn(ln)
	}
	l.running--
	if l.draining && l.running == 0 {
		close(l.idle)
	}
}

// turn gives the head of one lane to work. The caller holds the lock; it is released while work runs.
func (l *Lanes[T]) turn(ln *lane[T]) {
	ln.state, ln.woken = busy, false
	// Add may grow ln.items meanwhile: it only appends, so these elements stay as they are.
	head := ln.items[:min(l.batch, len(ln.items)):min(l.batch, len(ln.items))]
	l.hire() // one worker at a time wakes the next, for as long as lanes are ready
	l.mu.Unlock()
	done, retryAfter := l.work(l.ctx, ln.key, head)
	l.mu.Lock()

	done = min(max(done, 0), len(head))
	failed := done < len(head)
	l.items -= done
	clear(ln.items[:done]) // let go of what the items point to
	ln.items = ln.items[done:]
	switch {
	case len(ln.items) == 0:
		delete(l.lanes, ln.key)
	case l.draining:
	case failed && retryAfter > 0 && !ln.woken:
		ln.state = waiting
		ln.turn++
		turn := ln.turn
		ln.timer = time.AfterFunc(retryAfter, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if ln.state == waiting && ln.turn == turn && !l.draining {
				l.wake(ln)
			}
		})
	default:
		l.enqueue(ln)
	}
}

func (l *Lanes[T]) wake(ln *lane[T]) {
	if ln.timer != nil {
		ln.timer.Stop()
		ln.timer = nil
	}
	l.enqueue(ln)
	l.hire()
}
