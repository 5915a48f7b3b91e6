package irc

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/internal/failpoint"
)

// errFull is a queue at its cap. Nothing was queued.
var errFull = errors.New("too many lines wait to be sent to the network")

const (
	queueCap   = 1000 // lines of which nobody can do without; what a person waits for is bounded by the lanes
	fenceAfter = 8    // lines without a label, at most, before a fence
)

// line is one line that waits to be written.
type line struct {
	data []byte
	wait *pending // nil: nobody waits
}

// queue is what waits to be written to one link. Every line takes a token of the bucket, once registration is over: a server
// counts them all. Its writer lives only while something waits.
type queue struct {
	conn    net.Conn
	timeout time.Duration // for one write
	confirm time.Duration // for the confirmation of a line
	running *sync.WaitGroup
	stop    chan struct{} // closed when the link is gone

	mu       sync.Mutex
	bucket   bucket
	free     bool // registration: no tokens
	urgent   []line
	lines    []line
	writing  bool
	failed   error
	inFlight []*pending // started, not settled, in order
	unfenced []*pending // started, without a label, no fence after them yet
	fences   map[string][]*pending
	fenceNo  int
}

func newQueue(conn net.Conn, config *Config, running *sync.WaitGroup) *queue {
	return &queue{
		conn: conn, timeout: config.Ping.Timeout, confirm: config.Ping.Interval + config.Ping.Timeout, running: running,
		stop: make(chan struct{}), free: true, fences: map[string][]*pending{},
		bucket: bucket{burst: config.Flood.Burst, interval: config.Flood.Interval, at: time.Now()},
	}
}

// push adds lines that stay together. A queue that has failed settles them as never sent.
func (q *queue) push(lines ...line) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed != nil {
		for _, l := range lines {
			if l.wait != nil {
				l.wait.lost()
			}
		}
		return errUnsent
	}
	if len(q.lines)+len(lines) > queueCap {
		return errFull
	}
	q.lines = append(q.lines, lines...)
	q.work()
	return nil
}

// hurry adds a line that goes before all others, such as a PONG.
func (q *queue) hurry(data []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// Nobody needs more answers than this at once; a server that asks faster gets fewer.
	if q.failed == nil && len(q.urgent) < 50 {
		q.urgent = append(q.urgent, line{data: data})
		q.work()
	}
}

// idle adds a line only when nothing waits and more than half of the tokens are there. It reports whether it did.
func (q *queue) idle(data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed != nil || len(q.lines) > 0 || len(q.urgent) > 0 || !q.bucket.half(time.Now()) {
		return false
	}
	q.lines = append(q.lines, line{data: data})
	q.work()
	return true
}

// meter ends the time in which lines are free.
func (q *queue) meter() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = false
}

// cancel takes back, all at once, what of a message has not been started: not one of its lines gets the place of another.
// It gives those that have left.
func (q *queue) cancel(lines []*pending) (left []*pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range lines {
		switch {
		case p.started:
			left = append(left, p)
			continue
		case p.settled:
			continue
		case p.paid:
			q.bucket.giveBack()
		}
		q.lines = slices.DeleteFunc(q.lines, func(l line) bool { return l.wait == p })
		p.settle("", errUnsent)
	}
	if q.failed == nil {
		q.work() // they may have stood in the way of others
	}
	return left
}

// pass lets a line go whose turn was announced.
func (q *queue) pass(p *pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.passed = true
	if q.failed == nil {
		q.work()
	}
}

// busy reports whether lines wait to be written.
func (q *queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines) > 0
}

// fail ends the queue, and settles everything in it.
func (q *queue) fail(cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed != nil {
		return
	}
	q.failed = cause
	close(q.stop)
	for _, p := range q.inFlight {
		p.lost()
	}
	for _, l := range q.lines {
		if l.wait != nil {
			l.wait.lost()
		}
	}
	q.lines, q.urgent, q.inFlight, q.unfenced = nil, nil, nil, nil
	clear(q.fences)
}

func (q *queue) work() {
	if !q.writing {
		q.writing = true
		q.running.Go(q.drain)
	}
}

// drain writes until nothing is left.
func (q *queue) drain() {
	for {
		next, wait, ok := q.next()
		if !ok {
			return
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-q.stop:
				timer.Stop()
			}
			continue
		}
		_ = q.conn.SetWriteDeadline(time.Now().Add(q.timeout))
		if next.wait != nil {
			failpoint.Before("irc write")
		}
		n, err := q.conn.Write(next.data)
		if next.wait != nil {
			failpoint.After("irc write")
		}
		if err == nil {
			continue
		}
		if n == 0 && next.wait != nil {
			q.mu.Lock()
			next.wait.started = false // not a byte left
			q.mu.Unlock()
		}
		_ = q.conn.Close() // the reader notices
		q.fail(err)
	}
}

// next takes the line whose turn it is, or says how long there is no token, or that nothing is left to do: for a line that
// somebody wants to mark first, its turn is announced, with its token taken, and the writer ends until it may pass. Urgent
// lines go on meanwhile.
func (q *queue) next() (l line, wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed == nil && (len(q.unfenced) >= fenceAfter || len(q.unfenced) > 0 && len(q.lines) == 0) {
		q.fence()
	}
	if q.failed != nil || len(q.urgent)+len(q.lines) == 0 {
		q.writing = false
		return line{}, 0, false
	}
	var head *pending
	if len(q.urgent) == 0 {
		head = q.lines[0].wait
	}
	gated := head != nil && head.turn != nil && !head.passed
	if paid := head != nil && head.paid; !paid && !q.free {
		now := time.Now()
		if wait = q.bucket.wait(now); wait > 0 {
			return line{}, wait, true
		}
		q.bucket.take(now)
	} else if paid && gated {
		q.writing = false
		return line{}, 0, false
	}
	if gated {
		head.paid = true
		close(head.turn)
		q.writing = false
		return line{}, 0, false
	}
	if len(q.urgent) > 0 {
		l, q.urgent = q.urgent[0], q.urgent[1:]
		return l, 0, true
	}
	l, q.lines = q.lines[0], q.lines[1:]
	if l.wait != nil {
		l.wait.start(q)
		q.inFlight = append(q.inFlight, l.wait)
		if l.wait.label == "" {
			q.unfenced = append(q.unfenced, l.wait)
		}
	}
	return l, 0, true
}

// fencePrefix begins the tokens of fences, to tell them from other PINGs.
const fencePrefix = "fence-"

// fence puts a PING behind what was written: its PONG shows that the server has acted on all of it.
func (q *queue) fence() {
	q.fenceNo++
	token := fencePrefix + strconv.Itoa(q.fenceNo)
	q.fences[token] = q.unfenced
	q.unfenced = nil
	q.urgent = append(q.urgent, line{data: []byte("PING " + token + "\r\n")})
}
