package bridgetest

import (
	"slices"
	"strconv"
	"time"
)

// due gives the transaction that is to be sent now; without one, the time of the next try, which is zero when only something
// new can bring it about. The three families differ in what a transaction is:
//
//   - Synapse makes one of whatever waits, numbers it, and keeps it. While an appservice is down it goes on making them, and
//     retries the oldest.
//   - Dendrite has no transactions: it tries with the oldest events that wait, under the time at which the first of them
//     came. The next try has the same ID, and more in it.
//   - Continuwuity and Tuwunel keep one, named by a hash of its content, and try it again when something new waits.
func (hs *Homeserver) due(as *appService) (*transaction, time.Time) {
	switch hs.traits.family {
	case dendrite:
		return hs.dueDendrite(as)
	case conduit:
		return hs.dueConduit(as), time.Time{}
	}
	return hs.dueSynapse(as)
}

func (hs *Homeserver) dueSynapse(as *appService) (*transaction, time.Time) {
	for as.waiting() > 0 {
		t := hs.takeTransaction(as)
		hs.sequence++
		t.number, t.id = hs.sequence, strconv.Itoa(hs.sequence)
		as.pending = append(as.pending, t)
		if as.up {
			return t, time.Time{}
		}
		t.more = nil
	}
	if as.up || !hs.started {
		return nil, time.Time{}
	}
	if len(as.pending) == 0 {
		as.up = true
		hs.notify()
		return nil, time.Time{}
	}
	if hs.opts.Clock.Now().Before(as.nextTry) {
		return nil, as.nextTry
	}
	return as.pending[0], time.Time{}
}

func (hs *Homeserver) dueDendrite(as *appService) (*transaction, time.Time) {
	if len(as.pending)+len(as.events) == 0 {
		return nil, time.Time{}
	}
	if hs.opts.Clock.Now().Before(as.nextTry) {
		return nil, as.nextTry
	}
	if len(as.pending) == 0 {
		first := as.events[0]
		t := hs.takeTransaction(as)
		t.id = strconv.FormatInt(first.arrived, 10)
		as.pending = append(as.pending, t)
		return t, time.Time{}
	}
	t := as.pending[0]
	t.events = append(t.events, cut(&as.events, hs.traits.batch-len(t.events))...)
	return t, time.Time{}
}

func (hs *Homeserver) dueConduit(as *appService) *transaction {
	if len(as.pending) == 0 {
		if as.waiting() == 0 {
			return nil
		}
		sortByRoom(as.events)
		as.pending = append(as.pending, hs.takeTransaction(as))
	}
	if !as.up && !as.prodded {
		return nil
	}
	return as.pending[0]
}

// attempted notes how an attempt went.
func (hs *Homeserver) attempted(as *appService, t *transaction, err error) {
	defer hs.notify()
	if err == nil {
		as.pending = slices.DeleteFunc(as.pending, func(p *transaction) bool { return p == t })
		as.sent++
		as.lastID = t.id
		as.backoff, as.nextTry = 0, time.Time{}
		if hs.traits.family != synapse {
			as.up = true
		}
		return
	}
	as.failed++
	as.up, as.prodded = false, false
	if hs.traits.family == synapse {
		for _, p := range as.pending {
			p.more = nil
		}
	}
	if hs.traits.backoff > 0 {
		as.backOff(hs, min(as.backoff+1, hs.traits.backoff))
	}
}

// backOff sets the time of the next try, 2 to the power of exponent units from now.
func (as *appService) backOff(hs *Homeserver, exponent int) {
	as.backoff = exponent
	as.nextTry = hs.opts.Clock.Now().Add(hs.opts.RetryUnit << exponent)
}

// prod tells the pusher of something new, which is what makes Continuwuity and Tuwunel try again.
func (as *appService) prod() {
	as.prodded = true
	as.nudge()
}

// wakeRecoverers lets the retries begin that a restart ended.
func (hs *Homeserver) wakeRecoverers() {
	if hs.started {
		return
	}
	hs.started = true
	for _, as := range hs.services {
		if !as.up {
			as.backOff(hs, 1)
			as.nudge()
		}
	}
}

// Restart does to the homeserver's memory what a restart does. Remembered transaction IDs of clients go, except of those that
// the server keeps in its database: for Synapse, what was sent with a device. Typing ends. Users, rooms, media and logins
// stay.
//
// Of Synapse, a transaction under way is cut off; it stays unacknowledged, and goes again only when a later one fails. An
// appservice that is down is not retried, whatever it pings, until the next event that interests any appservice. The others
// send what they have not got rid of at once.
func (hs *Homeserver) Restart() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.txnCache = make(map[string]cached)
	highest := 0
	for _, as := range hs.services {
		as.generation++
		if as.abortSend != nil {
			as.abortSend()
		}
		if hs.traits.family != synapse {
			as.backoff, as.nextTry = 0, time.Time{}
			as.prod()
			continue
		}
		as.ephemeral = nil
		if hs.opts.RestartForgets && as.abortSend != nil {
			as.events = nil
		}
		for _, t := range as.pending {
			highest = max(highest, t.number)
			t.more = nil
		}
	}
	if hs.traits.family == synapse {
		hs.started = false
		if hs.opts.RestartSequence {
			hs.sequence = highest
		}
	}
	for _, r := range hs.rooms {
		r.stopTimers()
		clear(r.typing)
		r.typingAt = hs.advance()
	}
	hs.notify()
}
