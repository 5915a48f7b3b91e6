package irc

import (
	"strings"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

// handleMessage is PRIVMSG and NOTICE.
func (l *link) handleMessage(m *ircmsg.Message) {
	if l.fromHistory(m) {
		return
	}
	nick, target, text := m.Nick(), m.Params[0], m.Params[1]
	if l.isMe(nick) {
		_, msgid := m.GetTag("msgid")
		l.learn(m)
		if label := l.label(m); label != "" {
			l.queue.byLabel(label, msgid, nil)
		} else {
			l.queue.byEcho(l.fold(target), msgid)
		}
		return
	}
	if nick == "" || !l.ready {
		return // the server's own words before the welcome
	}
	if !l.support.isChannel(target) {
		// To a channel's operators alone (STATUSMSG), or to us: never relayed to a wider circle than it was meant for.
		if l.isMe(target) && m.Command == "PRIVMSG" {
			l.answer(m, nick, text)
		}
		return
	}
	if ch := l.in(target); ch != nil {
		if in, ok := l.incoming(ch, m); ok {
			l.deliver(m, in)
		}
	}
}

// incoming is what somebody said in a channel; ok is false for what is for the users' clients, and for nothing at all.
func (l *link) incoming(ch *channel, m *ircmsg.Message) (in bridge.Incoming, ok bool) {
	kind, text := bridge.KindText, m.Params[1]
	if m.Command == "NOTICE" {
		kind = bridge.KindNotice
	}
	if command, argument, ok := ctcp(text); ok {
		if command != "ACTION" || kind == bridge.KindNotice {
			return in, false
		}
		kind, text = bridge.KindEmote, argument
	}
	body, html := format.ToMatrix(text)
	if strings.TrimSpace(body) == "" {
		return in, false
	}
	_, msgid := m.GetTag("msgid")
	return bridge.Incoming{
		Channel: ch.name, ID: msgid, Sender: l.remote(m.Nick()),
		Text: &bridge.Text{Kind: kind, Body: body, HTML: html, ReplyTo: replyTag(m)},
	}, true
}

func replyTag(m *ircmsg.Message) string {
	for _, name := range [...]string{"+reply", "+draft/reply"} {
		if present, id := m.GetTag(name); present && id != "" {
			return id
		}
	}
	return ""
}

// handleTagmsg is TAGMSG: typing (https://ircv3.net/specs/client-tags/typing) and reactions.
func (l *link) handleTagmsg(m *ircmsg.Message) {
	nick := m.Nick()
	if l.isMe(nick) {
		l.learn(m)
		if label := l.label(m); label != "" {
			_, msgid := m.GetTag("msgid")
			l.queue.byLabel(label, msgid, nil)
		}
		return
	}
	ch := l.in(m.Params[0])
	if ch != nil && nick != "" && l.reaction(ch, m) {
		return
	}
	if ch == nil || nick == "" || !l.session.crew.receives(l.session, ch.name) {
		return
	}
	for _, name := range [...]string{"+typing", "+draft/typing"} {
		present, state := m.GetTag(name)
		if !present {
			continue
		}
		user, out, typing := l.remote(nick), l.session.out, state == "active"
		channel := ch.name
		l.after = append(l.after, func() { out.typing(channel, user, typing) })
		return
	}
}
