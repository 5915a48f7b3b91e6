package irc

import (
	"errors"
	"fmt"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// errUnsent is the fate of a line that never left: the link broke before its turn.
var errUnsent = errors.New("the link was lost before the line was sent")

// pending is a line whose fate somebody waits for. Everything but done is guarded by the queue's lock until done is closed.
type pending struct {
	target string // folded channel: refusals name it
	label  string // with labeled-response; otherwise a fence confirms the line
	done   chan struct{}
	turn   chan struct{} // closed when it is the line's turn; nil: it needs no mark, and just goes

	paid    bool // its turn came, with a token
	passed  bool // it was marked, and may go
	started bool
	settled bool
	timer   *time.Timer
	msgid   string
	err     error
}

func newPending(target string) *pending { return &pending{target: target, done: make(chan struct{})} }

// settle decides the fate, once.
func (p *pending) settle(msgid string, err error) {
	if p.settled {
		return
	}
	p.settled, p.msgid, p.err = true, msgid, err
	if p.timer != nil {
		p.timer.Stop()
	}
	close(p.done)
}

// errUnconfirmed is the fate of a line that left, but may not have arrived. Why the link broke is in the log, and not here: the
// sender is shown this, and the system's errors tell our address.
var errUnconfirmed = errors.New("the link was lost before the network confirmed the line")

// lost decides it for a link that is gone.
func (p *pending) lost() {
	if p.started {
		p.settle("", bridge.InDoubt(errUnconfirmed))
	} else {
		p.settle("", errUnsent)
	}
}

// start is called just before the bytes leave; when nothing confirms them in time, nobody knows.
func (p *pending) start(q *queue) {
	p.started = true
	p.timer = time.AfterFunc(q.confirm, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		p.settle("", bridge.InDoubt(fmt.Errorf("the network did not confirm the line within %v", q.confirm)))
	})
}

// byLabel settles the line that carried a label.
func (q *queue) byLabel(label, msgid string, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.inFlight {
		if p.label == label && label != "" {
			p.settle(msgid, err)
			q.sweep()
			return true
		}
	}
	return false
}

// byTarget settles the oldest line without a label that went to the target, because of a numeric that names it.
func (q *queue) byTarget(target string, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.inFlight {
		if p.label == "" && p.target == target && !p.settled {
			p.settle("", err)
			q.sweep()
			return true
		}
	}
	return false
}

// byEcho settles the oldest line to the target, because its echo came back without a label: the server has just taken
// labels away.
func (q *queue) byEcho(target, msgid string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.inFlight {
		if p.label != "" && p.target == target && !p.settled {
			p.settle(msgid, nil)
			q.sweep()
			return
		}
	}
}

// fenceAll puts a fence behind everything in flight: labels and echoes that it waits for will not come any more.
func (q *queue) fenceAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.inFlight {
		if p.label != "" {
			p.label = ""
			q.unfenced = append(q.unfenced, p)
		}
	}
	for _, l := range q.lines {
		if l.wait != nil {
			l.wait.label = ""
		}
	}
	if q.failed == nil && len(q.unfenced) > 0 {
		q.work()
	}
}

// byFence settles what was sent before a PING whose PONG came back.
func (q *queue) byFence(token string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	fenced, ok := q.fences[token]
	delete(q.fences, token)
	for _, p := range fenced {
		p.settle("", nil)
	}
	q.sweep()
	return ok
}

func (q *queue) sweep() {
	kept := q.inFlight[:0]
	for _, p := range q.inFlight {
		if !p.settled {
			kept = append(kept, p)
		}
	}
	clear(q.inFlight[len(kept):])
	q.inFlight = kept
}
