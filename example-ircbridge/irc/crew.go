package irc

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// This file lets several sessions of one network sit in one channel, of which each line is delivered once. One of them is elected to receive. The
// others see the same lines: they hold what the receiver has not delivered yet, and note what it delivered and they have not read. When the
// receiver leaves or loses its link, the next one delivers just what it holds. Lines are compared by their ID, or without one by who said what: a
// server shows everybody in a channel the same lines in the same order.
//
// Who joins sees only what is said from then on, and so holds from its own JOIN on. The receiver's sight of that JOIN says from where on the two see
// the same; when the receiver goes before it has seen it, what was said between is fetched from the network's history, where there is one.

// crew is the sessions of a network, and who of them receives what.
type crew struct {
	out *outlet // the relay's: what any of them receives goes through it, in order

	mu       sync.Mutex // is taken while a session's lock is held, and never the other way round
	nicks    map[string]*bearer
	idents   map[string]string // of the logins that there are: the user name, by the nick that was asked for
	channels map[string]*watch // by the portal's name
}

func newCrew(out *outlet) *crew {
	return &crew{out: out, nicks: map[string]*bearer{}, idents: map[string]string{}, channels: map[string]*watch{}}
}

// watch is a channel that sessions are in.
type watch struct {
	receiver *session
	seats    []*seat
	barred   bool // the relay was shown the door, or not let in: nobody listens in its place
	// handing: what the new receiver held is being delivered, and what it sees meanwhile waits in pending.
	handing bool
	pending []bridge.Incoming
	gap     bool // something was said that nobody has seen
}

// seat is a session in a channel.
type seat struct {
	s      *session
	inside bool     // it has seen its own JOIN
	synced bool     // the receiver has seen it, too
	nick   string   // under which the receiver sees it; empty: it is not known
	before *session // it is passed over until it sees the JOIN of this one
	held   []sight  // seen, and not delivered by the receiver
	ahead  []sight  // delivered by the receiver, and not seen
}

// sight is what a session sees in a channel: something to deliver, or that one of ours has come or gone.
type sight struct {
	key  string
	in   bridge.Incoming
	who  *session
	came bool
	nick string // of it, folded
	to   string // what it is from now on, after a change
	at   time.Time
}

// sightOf names what everybody in the channel sees. What only one was told, as a list of members, has no name.
func sightOf(in *bridge.Incoming) sight {
	sg := sight{in: *in}
	switch id := in.Sender.ID; {
	case in.ID != "":
		sg.key = "id " + in.ID
	case in.Text != nil:
		sg.key = fmt.Sprintf("%s %s\x00%s", in.Text.Kind, id, in.Text.Body)
	case in.Join != nil:
		sg.key = "join " + id
	case in.Leave != nil:
		sg.key = fmt.Sprintf("leave %s\x00%s\x00%s", id, in.Leave.By, in.Leave.Reason)
	case in.Rename != nil:
		sg.key = fmt.Sprintf("rename %s\x00%s", in.Rename.From.ID, id)
	case in.Redact != nil:
		sg.key = "redact " + in.Redact.ID
	case in.React != nil:
		sg.key = fmt.Sprintf("react %s\x00%v", id, *in.React)
	case in.Topic != nil && id != "":
		sg.key = fmt.Sprintf("topic %s\x00%s", id, in.Topic.Text)
	}
	return sg
}

// sightOfOurs names the nick: a link that is lost may sit in the channel for a while, beside the one that came after it.
func sightOfOurs(who *session, nick string, came bool) sight {
	return sight{key: fmt.Sprintf("ours %s %s %v", who.login, nick, came), who: who, nick: nick, came: came}
}

func sightOfOurNick(who *session, from, to string) sight {
	return sight{key: fmt.Sprintf("ours %s %s\x00%s", who.login, from, to), who: who, nick: from, to: to}
}

func (w *watch) seat(s *session) *seat {
	for _, st := range w.seats {
		if st.s == s {
			return st
		}
	}
	return nil
}

func (w *watch) sit(s *session) *seat {
	st := w.seat(s)
	if st == nil {
		st = &seat{s: s}
		w.seats = append(w.seats, st)
	}
	return st
}

func (w *watch) rise(s *session) {
	w.seats = slices.DeleteFunc(w.seats, func(st *seat) bool { return st.s == s })
}

// note adds to a list what the other side is expected to have, too; what it never has is forgotten.
func (st *seat) note(list []sight, sg sight) []sight {
	sg.at = time.Now()
	n := 0
	for n < len(list) && (st.stale(list[n]) || len(list)-n >= heldMost) {
		n++
	}
	return append(list[n:], sg)
}

// stale: a receiver that has shown nothing for so long is gone, or was never shown it, and so is who has not read what it has delivered.
func (st *seat) stale(sg sight) bool {
	ping := st.s.config.Ping
	return time.Since(sg.at) > ping.Interval+ping.Timeout+time.Minute
}

// strike takes out the first of this name.
func (st *seat) strike(list *[]sight, key string) bool {
	i := slices.IndexFunc(*list, func(sg sight) bool { return sg.key == key && !st.stale(sg) })
	if i < 0 {
		return false
	}
	*list = slices.Delete(*list, i, i+1)
	return true
}

// enters takes a session into a channel, and says whether it is the one that receives.
func (c *crew) enters(s *session, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	if w == nil {
		w = &watch{}
		c.channels[name] = w
	}
	w.sit(s).inside = true
	if s.login == bridge.RelayLogin {
		w.barred = false
	}
	if w.receiver == nil && !w.barred {
		w.receiver = s
		for _, st := range w.seats {
			switch { // it was there before, and nobody received: from this JOIN on they see the same
			case st.s == s:
			case len(st.held) > 0:
				st.synced, st.before, st.held, st.ahead = true, nil, st.held[1:], nil
			default:
				st.synced, st.before, st.held, st.ahead = true, s, nil, nil
			}
		}
	}
	return w.receiver == s
}

// receives says whether a session is the one that receives.
func (c *crew) receives(s *session, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	return w != nil && w.receiver == s
}

// sees takes what a session sees, and says whether the session has to deliver it.
func (c *crew) sees(s *session, name string, sg sight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	if w == nil {
		return false
	}
	st := w.seat(s)
	switch {
	case st == nil:
		return false
	case w.receiver == nil: // barred, until the relay comes: it may have, and not know yet
		switch {
		case sg.came && sg.who.relays():
			st.held = append(st.held[:0], sg)
		case len(st.held) > 0:
			st.held = st.note(st.held, sg)
		}
		return false
	case sg.key == "":
		if w.receiver != s {
			return false
		}
	case st.before != nil:
		if sg.came && sg.who == st.before {
			st.before = nil
		}
		return false
	case st.strike(&st.ahead, sg.key):
		return false
	case w.receiver != s:
		if sg.came && sg.who == w.receiver && !st.synced {
			st.synced, st.held = true, nil // it came when we were there: what was before is not ours to tell
			return false
		}
		st.held = st.note(st.held, sg)
		return false
	default:
		w.tell(sg)
	}
	switch {
	case sg.who != nil:
		return false
	case w.handing:
		w.pending = append(w.pending, sg.in)
		return false
	}
	return true
}

// tell lets the others know what the receiver has seen.
func (w *watch) tell(sg sight) {
	if sg.who != nil {
		switch st := w.seat(sg.who); {
		case sg.came:
			st = w.sit(sg.who)
			st.synced, st.nick, st.ahead = true, sg.nick, nil // what was delivered before it is not shown
		case st == nil:
		case sg.to != "":
			if st.nick == sg.nick {
				st.nick = sg.to
			}
		case st.nick != "" && st.nick != sg.nick: // of an earlier link
		case st.inside:
			st.synced, st.nick, st.ahead = false, "", nil // it has come again meanwhile, as we are about to see
		default:
			w.rise(sg.who)
		}
	}
	for _, st := range w.seats {
		if st.s == w.receiver || st.s == sg.who || !st.synced {
			continue
		}
		if !st.strike(&st.held, sg.key) {
			st.ahead = st.note(st.ahead, sg)
		}
	}
}

// leaves takes a session out of a channel. gap: what it was about to deliver must be fetched. When handOver is true the caller calls the function of
// this name, without a lock.
func (c *crew) leaves(s *session, name string, gap, barred bool) (handOver bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	switch {
	case w == nil && barred && s.relays(): // it was not let in
		w = &watch{}
		c.channels[name] = w
	case w == nil:
		return false
	}
	w.rise(s)
	if barred && s.login == bridge.RelayLogin {
		w.barred = true
		for _, st := range w.seats {
			st.held, st.ahead = nil, nil
		}
		w.receiver = nil
		c.tidy(name)
		return false
	}
	if w.receiver != s {
		c.tidy(name)
		return false
	}
	w.receiver = nil
	next := w.next()
	if next == nil {
		c.tidy(name)
		return false
	}
	w.receiver = next.s
	w.gap = gap || !next.synced
	for _, st := range w.seats { // who came before the next one, and is not known to have: from its JOIN on they see the same
		if st == next || st.synced {
			continue
		}
		for i, sg := range slices.Backward(st.held) {
			if sg.came && sg.who == next.s {
				st.synced, st.held = true, st.held[i+1:]
				break
			}
		}
	}
	held := next.held
	next.held = nil
	for _, sg := range held {
		w.tell(sg)
		if sg.who == nil {
			w.pending = append(w.pending, sg.in)
		}
	}
	handOver, w.handing = !w.handing, true
	return handOver
}

// next is who is to receive: one that knows just what is missing, and among those the relay.
func (w *watch) next() (next *seat) {
	rank := func(st *seat) int {
		n := 0
		if st.synced {
			n = 2
		}
		if st.s.login == bridge.RelayLogin {
			n++
		}
		return n
	}
	for _, st := range w.seats {
		if st.inside && (next == nil || rank(st) > rank(next)) {
			next = st
		}
	}
	return next
}

// tidy forgets a channel in which nobody is. The caller holds the lock.
func (c *crew) tidy(name string) {
	if w := c.channels[name]; w != nil && len(w.seats) == 0 && !w.handing && !w.barred {
		delete(c.channels, name)
	}
}

// handOver delivers what a new receiver held, and then lets it deliver by itself. The outlet is that of who hands over: it gives up when that must end.
func (c *crew) handOver(out *outlet, name string) {
	var listed *session
	for {
		c.mu.Lock()
		w := c.channels[name]
		to, pending, gap := w.receiver, w.pending, w.gap
		switch {
		case to != nil && gap:
			pending = nil
		case len(pending) > 0:
			w.pending = nil
		case to == nil:
			w.handing = false
			c.tidy(name)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		for i := range pending {
			out.deliver(&pending[i])
		}
		switch {
		case len(pending) > 0 || to == nil:
		case to.takesOver(w, name, listed != to):
			return
		case !gap:
			listed = to
		}
	}
}

// takesOver ends the handing over. With list, the channel's members come before that, and it is not over yet; where something is missing, the network's
// history, if it has one.
func (s *session) takesOver(w *watch, name string, list bool) (over bool) {
	s.mu.Lock()
	l := s.link
	if l == nil {
		s.mu.Unlock()
		return false // it is about to leave
	}
	defer l.unlock()
	c := s.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := s.channels[l.fold(name)]
	switch {
	case w.receiver != s || ch == nil || !ch.joined:
		return false
	case w.gap:
		if w.gap = false; l.hasHistory() {
			l.catchUp(ch)
			ch.held = append(w.pending, bridge.Incoming{Channel: ch.name, Members: ch.list(l)})
			w.pending, w.handing = nil, false
			return true
		}
		return false
	case list && ch.members != nil:
		w.pending = append(w.pending, bridge.Incoming{Channel: ch.name, Members: ch.list(l)})
		return false
	case len(w.pending) > 0:
		return false
	}
	w.handing = false
	s.log().Info().Msg("Receives " + ch.name + " from now on, as " + l.nick)
	return true
}
