package irc

import (
	"slices"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// This file lets several sessions of one network sit in one channel, of which each line is delivered once, whoever shows it first (watch.go).

// crew is the sessions of a network, and what they see of its channels.
type crew struct {
	out   *outlet // the relay's: what any of them receives goes through it, in order
	relay *session

	mu       sync.Mutex // is taken while a session's lock is held, and never the other way round
	nicks    map[string]*bearer
	idents   map[string]bool   // the user names of the logins that there are
	channels map[string]*watch // by the portal's name
}

func newCrew(out *outlet) *crew {
	return &crew{out: out, nicks: map[string]*bearer{}, idents: map[string]bool{}, channels: map[string]*watch{}}
}

// watch is that of a channel. The caller holds the lock.
func (c *crew) watch(name string) *watch {
	w := c.channels[name]
	if w == nil {
		w = &watch{turn: make(chan struct{}, 1)}
		c.channels[name] = w
	}
	return w
}

// tidy forgets a channel in which nobody is. The caller holds the lock.
func (c *crew) tidy(name string, w *watch) {
	if len(w.seats) == 0 && len(w.ready) == 0 && len(w.turn) == 0 && !w.barred && !w.out && c.channels[name] == w {
		delete(c.channels, name)
	}
}

// awaits says that a session is about to send a JOIN.
func (c *crew) awaits(s *session, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.watch(name); w.seat(s) == nil {
		w.sit(s)
	}
}

// parts says that a session is about to send a PART.
func (c *crew) parts(s *session, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.channels[name]; w != nil {
		if st := w.seat(s); st != nil {
			st.parts = true
		}
	}
}

// enters says that a session has read its own JOIN, under this nick.
func (c *crew) enters(s *session, name, nick string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watch(name)
	st := w.seat(s)
	if st == nil {
		st = w.sit(s)
	}
	w.count++
	st.inside, st.entered = true, w.count
	if !st.placed && !st.over {
		st.nick = nick
	}
	if s.relays() {
		w.out = false
	}
}

// counts says that a session knows who of us was in the channel before it. doubts says that it waits for some who were not in its list: c.aside is to be called later.
func (c *crew) counts(s *session, name string, ours []*session) (doubts bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	if w == nil {
		return false
	}
	st := w.seat(s)
	if st == nil || !st.inside || st.counted {
		return false
	}
	st.counted, st.listed, st.since = true, ours, time.Now()
	if !st.placed && !st.over {
		for _, other := range ours {
			// Who has sent a JOIN after this one was read was there before in an earlier life, which is over.
			if before := w.seat(other); before != nil && before != st && before.sat < st.entered && !slices.Contains(st.before, before) {
				st.before = append(st.before, before)
			}
		}
	}
	w.settle()
	return st.doubts()
}

// aside has a session wait no longer for those who do not show that it has come, because the network is split.
func (c *crew) aside(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.channels[name]; w != nil {
		w.setAside()
		w.settle()
	}
}

// sees takes what a session sees. It says whether there is something to release.
func (c *crew) sees(s *session, name string, sg sight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	if w == nil {
		return false
	}
	st := w.seat(s)
	if st == nil || !st.inside {
		return false
	}
	w.take(st, sg)
	w.settle()
	if len(w.pending) >= heldMost {
		s.log().Warn().Str("channel", name).Msg("More is said than is held until what was said before is fetched: that may come later, or not at all")
		w.goOn()
	}
	return len(w.ready) > 0 || w.waits && !w.fetching
}

// leaving is how a session leaves a channel.
type leaving struct {
	read    *sight // in the channel, and by itself: all before that it has read as well
	barred  bool   // the channel does not want it
	refused bool   // it was not let in
	again   bool   // a JOIN is on its way
}

// leaves takes a session out of a channel. The caller releases, without a lock.
func (c *crew) leaves(s *session, name string, how leaving) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	if w == nil && !(how.barred && s.relays()) {
		return
	}
	w = c.watch(name)
	st := w.seat(s)
	if how.barred && s.relays() {
		w.out = true
	}
	switch {
	case st != nil && st.inside && how.read != nil:
		w.take(st, *how.read)
		w.barred = w.barred || st.over && how.barred && s.relays() // who is on another side of a split is not shown it
	case how.barred && s.relays(): // it was not let in
		w.barred = true
	}
	if w.by == s {
		w.by = nil
	}
	for st != nil {
		w.leaves(st, how.refused)
		next := w.seat(s)
		if how.read != nil {
			if next == nil && how.again {
				w.sit(s)
			}
			break
		}
		st = next
	}
	w.settle()
	c.tidy(name, w)
}

// receives says whether a session is the one of which is delivered what each is told for itself.
func (c *crew) receives(s *session, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	return w != nil && !w.barred && w.teller() == s
}

// missing says whether a session is to look for what nobody has seen; from then on, that it is doing so.
func (c *crew) missing(s *session, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	if w == nil || !w.waits || w.by != s || w.fetching {
		return false
	}
	if st := w.seat(s); st == nil || !st.counted {
		return false
	}
	w.fetching = true
	return true
}

// fetching says whether it is doing so still.
func (c *crew) fetching(s *session, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[name]
	return w != nil && w.by == s && w.fetching
}

// found has something of the past delivered before what was seen meanwhile.
func (c *crew) found(name string, in bridge.Incoming) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watch(name)
	w.ready = append(w.ready, in)
}

// goesOn says that a session is done with that, and who is in the channel.
func (c *crew) goesOn(s *session, in bridge.Incoming) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.channels[in.Channel]
	if w == nil || w.by != s || !w.fetching {
		return
	}
	if st := w.seat(s); st != nil {
		w.members(st, in)
	}
	w.goOn()
}

// release delivers what is ready, in order: who finds somebody at it waits. The outlet gives up when the session that it is of must end.
func (c *crew) release(out *outlet, name string) {
	c.mu.Lock()
	w := c.channels[name]
	if w == nil {
		c.mu.Unlock()
		return
	}
	by := w.by
	c.mu.Unlock()
	if by != nil {
		by.looksBack(name)
	}
	select {
	case w.turn <- struct{}{}:
	case <-out.given:
		return
	}
	c.mu.Lock()
	for len(w.ready) > 0 {
		in := w.ready[0]
		w.ready = w.ready[1:]
		c.mu.Unlock()
		delivered := out.deliver(&in)
		c.mu.Lock()
		if !delivered { // the relay does
			w.ready = append([]bridge.Incoming{in}, w.ready...)
			c.relay.later(0, func() { c.release(c.out, name) })
			break
		}
	}
	<-w.turn
	c.tidy(name, w)
	c.mu.Unlock()
}
