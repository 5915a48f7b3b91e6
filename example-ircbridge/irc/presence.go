package irc

import (
	"errors"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

// Who is in which channel: JOIN, PART, KICK, QUIT, NICK and NAMES.

func (l *link) handleJoin(m *ircmsg.Message) {
	nick, name := m.Nick(), m.Params[0]
	if l.isMe(nick) {
		l.learn(m)
		ch := l.session.channels[l.fold(name)]
		if ch == nil || !ch.wanted {
			// Forwarded, or made to join: nobody asked for it.
			l.send("PART", name)
			return
		}
		ch.joined, ch.lasting, ch.kicked, ch.told = true, true, "", false
		ch.members = map[string]string{}
		ch.again.reset()
		ch.decide(nil)
		l.session.log().Info().Msg("Joined " + ch.name)
		l.session.crew.enters(l.session, ch.name, l.fold(nick))
		l.online()
		return
	}
	if ch := l.in(name); ch != nil && nick != "" {
		ch.add(l.fold(nick), nick)
		l.deliver(m, bridge.Incoming{Channel: ch.name, Sender: l.remote(nick), Join: &bridge.Join{}})
	}
}

func (l *link) handlePart(m *ircmsg.Message) {
	nick, name := m.Nick(), m.Params[0]
	ch := l.session.channels[l.fold(name)]
	if ch == nil {
		return
	}
	if l.isMe(nick) {
		asked := ch.parting
		sg := sightOfOurs(l.session, l.fold(nick), false)
		sg.barred = ch.wanted && !asked
		l.goes(ch, leaving{read: &sg, barred: sg.barred, again: ch.joining})
		ch.left()
		switch {
		case !ch.wanted:
			delete(l.session.channels, l.fold(name))
			return
		case asked:
			return // and JOIN is on its way: somebody has changed his mind
		}
		ch.kicked = "made to leave"
		l.warn(ch.name, "The bridge was made to leave "+ch.name+" on IRC. It does not go back by itself: plumb the channel again.")
		return
	}
	reason := ""
	if len(m.Params) > 1 {
		reason = readable(m.Params[1])
	}
	l.leave(m, ch, nick, bridge.Leave{Reason: reason})
}

func (l *link) leave(m *ircmsg.Message, ch *channel, nick string, leave bridge.Leave) {
	if ch.joined && ch.wanted && ch.remove(l.fold(nick)) {
		l.deliver(m, bridge.Incoming{Channel: ch.name, Sender: l.remote(nick), Leave: &leave})
	}
}

func (l *link) handleKick(m *ircmsg.Message) {
	by, name, victim := m.Nick(), m.Params[0], m.Params[1]
	ch := l.session.channels[l.fold(name)]
	if ch == nil {
		return
	}
	reason := ""
	if len(m.Params) > 2 {
		reason = readable(m.Params[2])
	}
	if !l.isMe(victim) {
		if _, person := ch.members[l.fold(victim)]; person {
			// whoever of ours has the nick now has it from them
		} else if who := l.session.crew.whose(l.fold(victim), "", ""); who != nil {
			sg := sightOfOurs(who, l.fold(victim), false)
			sg.barred = true
			l.seesOurs(name, sg)
		}
		l.leave(m, ch, victim, bridge.Leave{Reason: reason, By: shown(by)})
		return
	}
	by = shown(by)
	sg := sightOfOurs(l.session, l.fold(victim), false)
	sg.barred = true
	l.goes(ch, leaving{read: &sg, barred: true})
	ch.left()
	ch.decide(bridge.Permanent(errors.New("the bridge was kicked")))
	ch.kicked = "kicked by " + by
	l.warn(ch.name, "The bridge was kicked from "+ch.name+" on IRC by "+by+" ("+reason+
		"). Nothing crosses now, and it does not go back by itself: ask the channel's operators, then plumb the channel again.")
}

func (l *link) handleQuit(m *ircmsg.Message) {
	nick, reason := m.Nick(), ""
	if len(m.Params) > 0 {
		reason = readable(m.Params[0])
	}
	if l.isMe(nick) {
		return
	}
	for _, ch := range l.session.channels {
		l.leave(m, ch, nick, bridge.Leave{Reason: reason})
	}
	l.regain(nick)
}

func (l *link) handleNick(m *ircmsg.Message) {
	from, to := m.Nick(), m.Params[0]
	if l.isMe(from) {
		l.learn(m)
		l.nick = to
		l.session.crew.bears(l.session, l.fold(to), l.user, l.host)
		for _, ch := range l.session.channels { // as others see it, if any are there
			l.seesOurs(ch.name, sightOfOurNick(l.session, l.fold(from), l.fold(to)))
		}
		return
	}
	for _, ch := range l.session.channels {
		if ch.joined && ch.wanted && ch.remove(l.fold(from)) {
			ch.add(l.fold(to), to)
			l.deliver(m, bridge.Incoming{Channel: ch.name, Sender: l.remote(to), Rename: &bridge.Rename{From: l.remote(from)}})
		}
	}
	l.regain(from)
}

func (l *link) handleNames(m *ircmsg.Message) {
	ch := l.in(m.Params[2])
	if ch == nil {
		return
	}
	if ch.listing == nil {
		ch.listing, ch.ours = map[string]string{}, nil
	}
	for _, name := range strings.Fields(m.Params[3]) {
		nick, _, _ := strings.Cut(strings.TrimLeft(name, l.support.prefixes), "!")
		if nick == "" || l.isMe(nick) {
			continue
		}
		if who := l.session.crew.whose(l.fold(nick), "", ""); who != nil {
			ch.ours = append(ch.ours, who)
		} else {
			ch.listing[l.fold(nick)] = nick
		}
	}
}

func (l *link) handleNamesEnd(m *ircmsg.Message) {
	ch := l.in(m.Params[1])
	if ch == nil || ch.listing == nil {
		return
	}
	ch.members, ch.listing = ch.listing, nil
	if s := l.session; s.crew.counts(s, ch.name, ch.ours) {
		s.later(asideAfter, func() {
			s.crew.aside(ch.name)
			s.crew.release(s.out, ch.name)
		})
	}
	if !l.looksBack(ch) {
		l.deliver(m, bridge.Incoming{Channel: ch.name, Members: ch.list(l)})
	}
	l.release(ch.name)
}

// handleTopic is TOPIC: somebody changed it. Our own changes come from Matrix.
func (l *link) handleTopic(m *ircmsg.Message) {
	nick := m.Nick()
	if l.isMe(nick) {
		l.learn(m)
		l.queue.byLabel(l.label(m), "", nil)
		return
	}
	if ch := l.in(m.Params[0]); ch != nil {
		l.deliver(m, bridge.Incoming{Channel: ch.name, Sender: l.remote(nick), Topic: &bridge.Topic{Text: readable(m.Params[1])}})
	}
}

// handleTopicIs is 331 and 332: what the topic is, after joining.
func (l *link) handleTopicIs(m *ircmsg.Message) {
	if ch := l.in(m.Params[1]); ch != nil {
		text := ""
		if m.Command == "332" {
			text = readable(m.Params[2])
		}
		l.deliver(m, bridge.Incoming{Channel: ch.name, Topic: &bridge.Topic{Text: text}})
	}
}

// readable is IRC text as plain text.
func readable(text string) string { return format.Strip(format.Clean(text)) }
