package ircd

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// This file is https://ircv3.net/specs/extensions/chathistory (the draft, without event-playback): what was said in a channel
// is kept, and may be asked for again by those who are in it.

const (
	historyCap    = "draft/chathistory"
	historyLimit  = 100 // messages of one answer
	historyFormat = "2006-01-02T15:04:05.000Z"
)

// past is a message that was said in a channel.
type past struct {
	id      string
	at      time.Time
	message ircmsg.Message
}

// remember keeps what was said in a channel. The channel's end does not end it.
func (s *Server) remember(ch *channel, message ircmsg.Message) {
	if s.opts.History <= 0 || message.Command == "TAGMSG" {
		return
	}
	_, stamp := message.GetTag("time")
	at, err := time.Parse(historyFormat, stamp)
	if err != nil {
		return
	}
	_, id := message.GetTag("msgid")
	key := s.mapping.Fold(ch.name)
	kept := append(s.history[key], past{id, at, message})
	if over := len(kept) - s.opts.History; over > 0 {
		kept = slices.Clone(kept[over:])
	}
	s.history[key] = kept
}

// chatHistory is the command CHATHISTORY.
func (s *Server) chatHistory(c *client, m *ircmsg.Message) {
	sub := strings.ToUpper(m.Params[0])
	fail := func(code string, context ...string) {
		c.fromServer("FAIL", append(append([]string{"CHATHISTORY", code}, context...), "The history cannot be had")...)
	}
	want := map[string]int{"LATEST": 4, "BEFORE": 4, "AFTER": 4, "BETWEEN": 5, "TARGETS": 4}[sub]
	switch {
	case want == 0:
		fail("INVALID_PARAMS", word(sub))
		return
	case len(m.Params) < want:
		fail("NEED_MORE_PARAMS", sub)
		return
	}
	limit, err := strconv.Atoi(m.Params[want-1])
	if err != nil || limit <= 0 {
		fail("INVALID_PARAMS", sub, word(m.Params[want-1]))
		return
	}
	limit = min(limit, historyLimit)
	if sub == "TARGETS" {
		s.historyTargets(c, m.Params[1], m.Params[2], limit, fail)
		return
	}
	ch := s.channel(m.Params[1])
	if ch == nil || ch.members[c] == nil {
		fail("INVALID_TARGET", sub, word(m.Params[1]))
		return
	}
	all := s.history[s.mapping.Fold(ch.name)]
	// Each reference stands between two messages: all before low or from high on are left out.
	low, high, newest := 0, len(all), true
	for i, reference := range m.Params[2 : want-1] {
		at, after, ok := place(all, reference)
		switch {
		case sub == "LATEST" && reference == "*":
		case !ok:
			fail("INVALID_MSGREFTYPE", sub, word(reference))
			return
		case sub == "BEFORE":
			high = at
		case sub == "BETWEEN" && i == 1:
			high = at
		default: // AFTER, LATEST, and the beginning of BETWEEN
			low, newest = after, sub == "LATEST"
		}
	}
	found := all[min(low, len(all)):max(high, min(low, len(all)))]
	if len(found) > limit {
		if newest {
			found = found[len(found)-limit:]
		} else {
			found = found[:limit]
		}
	}
	batch := s.nextID()
	c.fromServer("BATCH", "+"+batch, "chathistory", ch.name)
	for _, p := range found {
		message := p.message
		message.SetTag("batch", batch)
		c.deliver(message)
	}
	c.fromServer("BATCH", "-"+batch)
}

// place says how many messages are before a reference, and how many before or at it.
func place(all []past, reference string) (before, through int, ok bool) {
	kind, value, _ := strings.Cut(reference, "=")
	switch kind {
	case "timestamp":
		at, err := time.Parse(historyFormat, value)
		if err != nil {
			return 0, 0, false
		}
		for _, p := range all {
			if p.at.Before(at) {
				before++
			}
			if !p.at.After(at) {
				through++
			}
		}
		return before, through, true
	case "msgid":
		i := slices.IndexFunc(all, func(p past) bool { return p.id == value })
		if i < 0 {
			return 0, len(all), true // nothing is known of it, so there is nothing before or after it
		}
		return i, i + 1, true
	}
	return 0, 0, false
}

// historyTargets lists the channels in which something was said between two times.
func (s *Server) historyTargets(c *client, from, to string, limit int, fail func(string, ...string)) {
	var times [2]time.Time
	for i, reference := range []string{from, to} {
		at, err := time.Parse("timestamp="+historyFormat, reference)
		if err != nil {
			fail("INVALID_PARAMS", "TARGETS", word(reference))
			return
		}
		times[i] = at
	}
	if times[1].Before(times[0]) {
		times[0], times[1] = times[1], times[0]
	}
	type target struct {
		name string
		at   time.Time
	}
	var targets []target
	for key, kept := range s.history {
		ch := s.channels[key]
		if ch == nil || ch.members[c] == nil || len(kept) == 0 {
			continue
		}
		if at := kept[len(kept)-1].at; at.After(times[0]) && at.Before(times[1]) {
			targets = append(targets, target{ch.name, at})
		}
	}
	slices.SortFunc(targets, func(a, b target) int { return a.at.Compare(b.at) })
	batch := s.nextID()
	c.fromServer("BATCH", "+"+batch, "draft/chathistory-targets")
	for _, t := range targets[:min(len(targets), limit)] {
		line := ircmsg.MakeMessage(c.timeTag(), s.opts.Name, "CHATHISTORY", "TARGETS", t.name, t.at.Format(historyFormat))
		line.SetTag("batch", batch)
		c.respond(line)
	}
	c.fromServer("BATCH", "-"+batch)
}
