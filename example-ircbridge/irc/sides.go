package irc

import (
	"slices"
	"time"
)

// This file is for a network that is split: there are two streams then. Who reads that those are gone who have shown that it is gone knows that, and what it
// holds is delivered beside what they show.

// outlives: one of those goes that showed its going. In one stream only one of the two could be shown the other's: they are on another side of the network each, and
// neither is shown what the other is.
func (st *seat) outlives(sg sight) bool {
	if sg.who == nil || sg.came || sg.to != "" || st.left {
		return false
	}
	n := len(st.before)
	st.before = slices.DeleteFunc(st.before, func(other *seat) bool {
		return other.s == sg.who && (other.nick == "" || other.nick == sg.nick || slices.Contains(other.once, sg.nick))
	})
	st.apart = st.apart || len(st.before) < n
	return len(st.before) < n
}

// past: it reads that somebody is there after a split, and the stream has come to the same, and to what became of them since.
func (st *seat) past(sg sight) bool {
	back := -1
	for i, has := range st.ahead {
		if has.who == st.s && has.came {
			back = i
		}
	}
	moved := func(later sight) bool {
		return (later.in.Join != nil || later.in.Leave != nil) && later.in.Sender.ID == sg.in.Sender.ID && !st.stale(later)
	}
	return sg.in.Join != nil && back >= 0 && slices.ContainsFunc(st.ahead[back+1:], moved)
}

// back places one whose side of the network is joined again to the shower's. Who has not read so far says first what its side has seen.
func (w *watch) back(shower, st *seat, nick string) {
	knows := slices.Contains(st.knows, shower.s)
	st.nick, shower.knows = nick, append(shower.knows, st.s)
	w.place(st)
	switch {
	case shower.placed && knows:
		shower.knows = nil
	case shower.placed:
		w.ends(shower)
	}
}

// joinSides: where nobody is left on the stream's side of a split, the other is the stream's, and who is there is looked up.
func (w *watch) joinSides() {
	var apart *seat
	for _, st := range w.seats {
		switch {
		case st.placed && !st.apart:
			return
		case st.placed && apart == nil:
			apart = st
		}
	}
	if apart != nil {
		apart.apart = false
		w.waits, w.by, w.fetching = true, apart.s, false
	}
}

// asideAfter is how long who has come waits for those of ours to show its JOIN who were there, and not in its list. On some networks they are only not listed; else the
// network is split, and they do not show it before that is over.
const asideAfter = 30 * time.Second

// unlisted are those.
func (st *seat) unlisted(other *seat) bool { return !slices.Contains(st.listed, other.s) }

// doubts says whether a session waits for such. Should it wait for others as well, they may be gone before they have shown anything.
func (st *seat) doubts() bool {
	return !st.placed && !st.over && st.counted && slices.ContainsFunc(st.before, st.unlisted)
}

// setAside has nobody wait for them any more.
func (w *watch) setAside() {
	for _, st := range w.seats {
		if st.doubts() && time.Since(st.since) >= asideAfter {
			st.before, st.aside = slices.DeleteFunc(st.before, st.unlisted), !st.left
		}
	}
}
