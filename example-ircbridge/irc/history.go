package irc

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
)

// This file asks the network for what was said while the bridge was away: https://ircv3.net/specs/extensions/chathistory, a
// draft, and so under its draft name. Only servers are asked that give messages their ID and their time: by the ID is known what
// was taken in before.

const (
	historyCap     = "draft/chathistory"
	historyPage    = 100 // messages asked for at once, at most
	historyStamp   = "2006-01-02T15:04:05.000Z"
	historyWait    = 30 * time.Second // for an answer
	historyOverlap = 2 * time.Second  // asked for again: two messages may have one time
	heldMost       = 5000             // events of a channel that wait for its history
)

var (
	errNoHistory      = errors.New("the network has no history")
	errHistorySilent  = errors.New("the network did not answer with its history")
	errHistoryRefused = errors.New("the network does not give its history")
)

// histories are the questions that wait for an answer, in order of asking for each folded channel.
type histories struct {
	asked   map[string][]*historyQuestion
	batches map[string]*historyQuestion // by the reference of the batch that answers
}

type historyQuestion struct {
	target string
	line   []string
	sent   bool
	timer  *time.Timer
	lines  []ircmsg.Message
	done   func(lines []ircmsg.Message, err error) // under the session's lock
}

func (l *link) hasHistory() bool { return l.caps[historyCap] }

// page is how many messages one answer has.
func (l *link) page() int {
	if n := l.support.history; n > 0 {
		return min(n, historyPage)
	}
	return historyPage
}

// ask asks for the history of a channel: what is AFTER or BEFORE a reference. done is called under the lock, unless the link ends.
func (l *link) ask(channel, sub, reference string, limit int, done func([]ircmsg.Message, error)) {
	if !l.hasHistory() {
		done(nil, errNoHistory)
		return
	}
	target := l.fold(channel)
	if l.history.asked == nil {
		l.history = histories{asked: map[string][]*historyQuestion{}, batches: map[string]*historyQuestion{}}
	}
	l.history.asked[target] = append(l.history.asked[target], &historyQuestion{
		target: target, line: []string{sub, channel, reference, strconv.Itoa(limit)}, done: done,
	})
	l.askNext(target)
}

func (l *link) askNext(target string) {
	waiting := l.history.asked[target]
	if len(waiting) == 0 {
		delete(l.history.asked, target)
		return
	}
	q := waiting[0]
	if q.sent {
		return
	}
	q.sent = true
	l.send("CHATHISTORY", q.line...)
	s := l.session
	q.timer = s.later(historyWait, func() {
		s.mu.Lock()
		if s.link == l {
			l.answered(q, errHistorySilent)
		}
		l.unlock()
	})
}

// answered ends a question, once.
func (l *link) answered(q *historyQuestion, err error) {
	waiting := l.history.asked[q.target]
	if len(waiting) == 0 || waiting[0] != q {
		return
	}
	q.timer.Stop()
	l.history.asked[q.target] = waiting[1:]
	q.done(q.lines, err)
	l.askNext(q.target)
}

// historyBatch takes the beginning and the end of an answer.
func (l *link) historyBatch(m *ircmsg.Message, reference string) bool {
	if name, ok := strings.CutPrefix(reference, "+"); ok {
		if len(m.Params) < 3 || m.Params[1] != "chathistory" {
			return false
		}
		if waiting := l.history.asked[l.fold(m.Params[2])]; len(waiting) > 0 {
			l.history.batches[name] = waiting[0]
		}
		return true
	}
	name, _ := strings.CutPrefix(reference, "-")
	q := l.history.batches[name]
	if q == nil {
		return false
	}
	delete(l.history.batches, name)
	l.answered(q, nil)
	return true
}

// fromHistory keeps a message that is part of an answer.
func (l *link) fromHistory(m *ircmsg.Message) bool {
	present, name := m.GetTag("batch")
	if !present {
		return false
	}
	q := l.history.batches[name]
	if q == nil {
		return false
	}
	q.lines = append(q.lines, *m)
	return true
}

// historyRefused is FAIL CHATHISTORY, whose context names the channel, or nothing that helps.
func (l *link) historyRefused(m *ircmsg.Message) {
	var only *historyQuestion
	for target, waiting := range l.history.asked {
		for _, context := range m.Params[2:] {
			if l.fold(context) == target {
				l.answered(waiting[0], errHistoryRefused)
				return
			}
		}
		only = waiting[0]
	}
	if len(l.history.asked) == 1 {
		l.answered(only, errHistoryRefused)
	}
}

// looksBack is for what nobody has seen of a channel, if this session is to see to that: who is there, and what the network's history has.
func (s *session) looksBack(name string) {
	s.mu.Lock()
	l := s.link
	if l == nil {
		s.mu.Unlock()
		return // it is about to leave
	}
	if ch := s.channels[l.fold(name)]; ch != nil && ch.name == name && ch.joined {
		l.looksBack(ch)
	}
	l.unlock()
}

func (l *link) looksBack(ch *channel) bool {
	if !l.session.crew.missing(l.session, ch.name) {
		return false
	}
	if l.hasHistory() {
		l.catchUp(ch)
	} else {
		l.caughtUp(ch, nil)
	}
	return true
}

// catchUp fetches what was said in a channel since the newest message that was taken in. What happens meanwhile is held.
func (l *link) catchUp(ch *channel) {
	s, name := l.session, ch.name
	l.after = append(l.after, func() {
		since, err := s.out.sink.Since(s.ctx, name)
		s.mu.Lock()
		switch {
		case s.link != l || !s.crew.fetching(s, name):
		case err != nil || since.IsZero():
			l.caughtUp(ch, err)
		default:
			l.fetch(ch, stamp(since.Add(-historyOverlap)), s.config.History)
		}
		l.unlock()
	})
}

func stamp(at time.Time) string { return "timestamp=" + at.UTC().Format(historyStamp) }

// fetch asks for a page after the reference, and goes on until there is no more, or as much as is allowed.
func (l *link) fetch(ch *channel, reference string, left int) {
	limit := min(l.page(), left)
	l.ask(ch.name, "AFTER", reference, limit, func(lines []ircmsg.Message, err error) {
		if !l.session.crew.fetching(l.session, ch.name) {
			return
		}
		for i := range lines {
			l.tellAgain(ch, &lines[i])
		}
		if left -= len(lines); err != nil || len(lines) < limit {
			l.caughtUp(ch, err)
			return
		}
		_, id := lines[len(lines)-1].GetTag("msgid")
		switch {
		case id == "":
			l.caughtUp(ch, nil)
		case left <= 0:
			l.warn(ch.name, "While the bridge was away more was said in "+ch.name+" than it fetches ("+strconv.Itoa(l.session.config.History)+" messages); some of it is missing here.")
			l.caughtUp(ch, nil)
		default:
			l.fetch(ch, "msgid="+id, left)
		}
	})
}

// tellAgain delivers a message of the past. One without an ID cannot be told from one that was taken in.
func (l *link) tellAgain(ch *channel, m *ircmsg.Message) {
	if _, id := m.GetTag("msgid"); id == "" || m.Nick() == "" || l.isOurs(m) || l.wasOurs(m) || l.fold(m.Params[0]) != l.fold(ch.name) {
		return
	}
	if in, ok := l.incoming(ch, m); ok {
		if _, value := m.GetTag("time"); value != "" {
			if at, err := time.Parse(time.RFC3339Nano, value); err == nil {
				in.Time = at
			}
		}
		l.session.crew.found(ch.name, in)
		l.release(ch.name)
	}
}

// caughtUp lets what was held follow.
func (l *link) caughtUp(ch *channel, err error) {
	if err != nil {
		l.session.log().Warn().Err(err).Str("channel", ch.name).Msg("What was said while the bridge was away could not be fetched")
	}
	l.session.crew.goesOn(l.session, bridge.Incoming{Channel: ch.name, Members: ch.list(l)})
	l.release(ch.name)
}
