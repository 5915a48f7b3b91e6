package irc

import (
	"slices"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// This file merges what several sessions see of one channel into one stream. A server shows everybody in a channel the same in the same order, and each
// session reads it at its own speed. So the stream is what the fastest one shows, and what the others show is struck off when they have read it, too.
//
// That needs to be known of each session where in the stream it begins: with its own JOIN, that the others see. It holds what it reads until one of them
// has shown that JOIN. Who that will be, the list of members says which the server sends after a JOIN: those who were there before. When all of them
// are gone before they have shown it, nobody has seen what was said in between, and the stream goes on with what the session holds.

// watch is a channel that sessions are in, or are about to be.
type watch struct {
	seats  []*seat
	count  int  // of what seats have done
	barred bool // as far as the stream goes, the relay was shown the door: nobody listens in its place
	out    bool // the relay knows that of itself
	ready  []bridge.Incoming
	turn   chan struct{} // whose it is to deliver what is ready
	// waits: something was said that nobody has seen, and by is to look for it in the network's history, and to tell who is there. What is seen
	// meanwhile is in pending.
	waits    bool
	by       *session
	fetching bool
	pending  []bridge.Incoming
}

// seat is a session in a channel, from one JOIN on: a session that comes again has a new one.
type seat struct {
	s       *session
	nick    string     // under which the stream has it; empty: it is not known
	once    []string   // and had it before
	sat     int        // when it was about to send its JOIN, in the watch's count
	entered int        // and when it has read that
	inside  bool       // it has read its JOIN
	counted bool       // and who was there before
	listed  []*session // those
	since   time.Time  // when it had read that
	aside   bool       // who is there is on another side of a split, as far as is known
	before  []*seat    // of those, who may still show the JOIN; and who was there earlier, and has not read that it is not any more
	placed  bool       // it is known where in the stream it begins
	over    bool       // the stream shows that it has gone, and it has not read so far
	knows   []*session // since then it has read of these that they are back
	apart   bool       // it is on a side of a split that is not the stream's
	parts   bool       // it wants to go
	left    bool       // it has gone, and its JOIN is still to be shown
	gone    time.Time
	held    []sight // it has read, and the stream does not have: until it is placed
	late    []sight // the stream had before it was over, and it has not read
	ahead   []sight // the stream has, and it has not read
}

// seat is that of a session which has not left.
func (w *watch) seat(s *session) *seat {
	for _, st := range w.seats {
		if st.s == s && !st.left {
			return st
		}
	}
	return nil
}

func (w *watch) sit(s *session) *seat {
	w.count++
	st := &seat{s: s, sat: w.count}
	for _, other := range w.seats {
		if other.inside && !other.over {
			st.before = append(st.before, other)
		}
	}
	w.seats = append(w.seats, st)
	return st
}

func (w *watch) rise(st *seat) {
	is := func(other *seat) bool { return other == st }
	w.seats = slices.DeleteFunc(w.seats, is)
	for _, other := range w.seats {
		other.before = slices.DeleteFunc(other.before, is)
	}
}

// leaves ends a seat, or keeps it until its JOIN is shown: then what it holds has its place, and that JOIN is not taken for a later one.
func (w *watch) leaves(st *seat, refused bool) {
	if refused || st.placed || st.over && len(st.held) == 0 {
		w.rise(st)
		return
	}
	for _, other := range slices.Clone(w.seats) {
		switch {
		case other.left && other.stale(sight{at: other.gone}):
			w.rise(other)
		case !st.counted && !st.over && other != st && !other.left && !other.over && !slices.Contains(st.before, other): // it may have been there
			st.before = append(st.before, other)
		}
	}
	st.left, st.gone = true, time.Now()
}

// first is who speaks for all, of those who are placed.
func (w *watch) first() *seat {
	for _, st := range w.seats {
		if st.placed && st.inside && !st.left {
			return st
		}
	}
	return nil
}

// teller is the session of which is delivered what each is told for itself.
func (w *watch) teller() *session {
	if w.waits {
		return w.by
	}
	if st := w.first(); st != nil {
		return st.s
	}
	return nil
}

// take takes what a session has read.
func (w *watch) take(st *seat, sg sight) {
	if st.over && sg.came {
		st.knows = append(st.knows, sg.who)
	}
	switch {
	case st.over && st.strike(&st.late, sg):
	case st.over && sg.who == nil && st.strike(&st.ahead, sg): // it is there still, and sees what the stream has
		w.place(st)
	case st.over && st.outlives(sg):
	case !st.placed:
		st.held = st.note(st.held, sg)
	case sg.key == "":
		if w.teller() == st.s {
			w.say(sg.in)
		}
	case !st.strike(&st.ahead, sg) && !st.past(sg):
		w.show(st, sg)
	}
}

// show adds to the stream.
func (w *watch) show(st *seat, sg sight) {
	for _, other := range w.seats {
		if other != st && !(other.over && other.strike(&other.held, sg)) {
			other.ahead = other.note(other.ahead, sg)
		}
	}
	switch {
	case sg.who == nil && st.apart && (sg.in.Join != nil || sg.in.Leave != nil): // the network's two sides come and go for each other, and are there
	case sg.who == nil:
		w.say(sg.in)
	case sg.came:
		st.apart = false
		w.came(st, sg)
	case sg.to != "":
		if at := w.placed(sg); at != nil {
			at.nick, at.once = sg.to, append(at.once, sg.nick)
		}
	default:
		w.gone(st, sg)
	}
}

func (w *watch) say(in bridge.Incoming) {
	switch {
	case w.barred:
	case w.waits:
		w.pending = append(w.pending, in)
	default:
		w.ready = append(w.ready, in)
	}
}

// placed is the seat of one of ours that the stream has under this nick.
func (w *watch) placed(sg sight) *seat {
	for _, st := range w.seats {
		if st.s == sg.who && st.placed && (st.nick == "" || st.nick == sg.nick) {
			return st
		}
	}
	return nil
}

// came places one of ours: the stream has come to its JOIN.
func (w *watch) came(shower *seat, sg sight) {
	if sg.who.relays() && w.barred {
		w.barred, w.waits, w.by, w.fetching = false, true, sg.who, false
	}
	var at, back *seat
	again := false
	for _, st := range w.seats {
		switch {
		case st.s != sg.who:
		case !st.placed && !st.over && (st.nick == "" || st.nick == sg.nick):
			if at == nil {
				at = st
			}
		case st.over && st.parts: // it has not read yet that it is out, and is back already
			again = true
		case st.over && !st.left: // as after a netsplit
			back = st
		}
	}
	switch {
	case at != nil:
	case back != nil:
		w.back(shower, back, sg.nick)
		return
	case again:
		at = w.sit(sg.who)
	default:
		return
	}
	at.nick, at.ahead = sg.nick, at.again()
	w.place(at)
}

// place has what a session holds follow. What of it is in the stream already is not said again, and the session is about to read the rest.
func (w *watch) place(st *seat) {
	held, had := st.held, append(st.late, st.ahead...)
	st.placed, st.over, st.knows, st.before, st.held, st.late, st.ahead = true, false, nil, nil, nil, nil, nil
	for _, sg := range held {
		if !st.strike(&had, sg) {
			w.take(st, sg)
		}
	}
	if st.over { // one of ours that it has shown has shown that it is gone
		st.late = append(had, st.late...)
	} else {
		st.ahead = append(had, st.ahead...)
	}
	if st.left {
		w.rise(st)
	}
}

// again is what the stream has that begins as what a session holds: some networks show a JOIN only when who has joined says something.
func (st *seat) again() []sight {
	held := others(st.held)
	for i, sg := range st.ahead {
		if len(held) == 0 || sg.key != held[0] {
			continue
		}
		ahead := others(st.ahead[i:])
		if n := min(len(ahead), len(held)); slices.Equal(ahead[:n], held[:n]) {
			return st.ahead[i:]
		}
	}
	return nil
}

// others is what is not of ours: who ours are, not every session knows at any time.
func others(list []sight) (keys []string) {
	for _, sg := range list {
		if sg.who == nil && sg.key != "" {
			keys = append(keys, sg.key)
		}
	}
	return keys
}

// gone: the stream has come to where one of ours goes.
func (w *watch) gone(shower *seat, sg sight) {
	st := w.placed(sg)
	if sg.who.relays() && (sg.barred || sg.parted && (st == nil && w.out || st != nil && !st.parts)) {
		w.barred = true
	}
	if st != nil && st != shower {
		w.ends(st)
	}
}

// ends: as far as the stream goes, it is out.
func (w *watch) ends(st *seat) {
	st.placed, st.over, st.before, st.late, st.ahead = false, true, nil, st.ahead, nil
	for _, other := range w.seats {
		if other.placed {
			st.before = append(st.before, other)
		}
	}
}

// settle goes on with those whose JOIN nobody will show any more.
func (w *watch) settle() {
	for st := w.next(); st != nil; st = w.next() {
		w.begin(st)
	}
	w.joinSides()
	w.appoint()
}

// next is who waits for nobody; or, should all wait for each other, which a server's lists do not lead to, the first of them.
func (w *watch) next() (next *seat) {
	others := false
	for _, st := range w.seats {
		switch {
		case st.placed || !st.left && !st.over && (!st.inside || !st.counted):
			others = true
		case len(st.before) == 0 && (st.left || !st.over || st.apart):
			return st
		case next == nil && st.inside:
			next = st
		}
	}
	if others {
		return nil
	}
	return next
}

// begin places a session with its own JOIN, which nobody has shown.
func (w *watch) begin(st *seat) {
	if !st.inside || st.over && st.left && st.stale(sight{at: st.gone}) {
		w.rise(st)
		return
	}
	alone := !slices.ContainsFunc(w.seats, func(other *seat) bool { return other.placed })
	switch {
	case st.s.relays() && !st.over:
		alone, w.barred = alone || w.barred, false
	case alone:
		w.barred = w.barred || w.out && !slices.ContainsFunc(w.seats, func(other *seat) bool { return other.left && other.s.relays() })
	}
	if alone || st.aside && !w.waits {
		w.waits, w.by, w.fetching = true, st.s, false
	}
	switch {
	case st.over && st.apart: // nor does it read how the others came and went
		ours := func(sg sight) bool { return sg.who != nil }
		st.late, st.ahead = slices.DeleteFunc(st.late, ours), slices.DeleteFunc(st.ahead, ours)
	case alone && !st.over:
		st.ahead = st.again()
	}
	w.place(st)
}

// appoint sees to it that there is somebody to look for what nobody has seen, if that is to be done.
func (w *watch) appoint() {
	switch {
	case !w.waits || !w.barred && w.by != nil && w.seat(w.by) != nil && !w.seat(w.by).over:
		return
	case !w.barred:
		var most *seat // who has read most
		for _, st := range w.seats {
			if st.placed && (most == nil || len(st.ahead) < len(most.ahead)) {
				most = st
			}
		}
		if most != nil {
			w.by, w.fetching = most.s, false
			return
		}
	}
	if w.fetching { // it is in the history, and is found there by who comes next
		w.pending = nil
	}
	w.goOn()
}

// goOn ends the waiting.
func (w *watch) goOn() {
	w.ready = append(w.ready, w.pending...)
	w.waits, w.by, w.fetching, w.pending = false, nil, false, nil
}

// members puts a list of members where it belongs: before what the session has not read.
func (w *watch) members(st *seat, in bridge.Incoming) {
	at := len(w.pending)
	for _, sg := range st.ahead {
		if sg.who == nil && at > 0 {
			at--
		}
	}
	w.pending = slices.Insert(w.pending, at, in)
}
