package ircd

import (
	"slices"

	"github.com/ergochat/irc-go/ircmsg"
)

// This file is https://ircv3.net/specs/extensions/message-redaction (the draft): who wrote a message in a channel, or is its operator, may take it back.

const (
	redactionCap = "draft/message-redaction"
	recentMost   = 2000 // messages that can be taken back
)

// written is a message to a channel.
type written struct {
	id, channel string // folded
	by          *client
}

func (s *Server) wrote(ch *channel, c *client, message ircmsg.Message) {
	if message.Command == "TAGMSG" {
		return
	}
	if len(s.recent) >= recentMost {
		s.recent = slices.Clone(s.recent[recentMost/2:])
	}
	_, id := message.GetTag("msgid")
	s.recent = append(s.recent, written{id: id, channel: s.mapping.Fold(ch.name), by: c})
}

// redact is the command REDACT.
func (s *Server) redact(c *client, m *ircmsg.Message) {
	target, id := m.Params[0], m.Params[1]
	fail := func(code, text string) { c.fromServer("FAIL", "REDACT", code, word(target), word(id), text) }
	ch := s.channel(target)
	if ch == nil || ch.members[c] == nil {
		c.fromServer("FAIL", "REDACT", "INVALID_TARGET", word(target), "You cannot take back messages there")
		return
	}
	key := s.mapping.Fold(ch.name)
	i := slices.IndexFunc(s.recent, func(w written) bool { return w.id == id && w.channel == key })
	switch {
	case i < 0:
		fail("UNKNOWN_MSGID", "There is no such message, or it is too old")
		return
	case s.recent[i].by != c && !ch.members[c].op:
		fail("REDACT_FORBIDDEN", "It is not yours")
		return
	}
	s.recent = slices.Delete(s.recent, i, i+1)
	s.history[key] = slices.DeleteFunc(s.history[key], func(p past) bool { return p.id == id })
	event := c.event("REDACT", append([]string{ch.name, id}, m.Params[2:]...)...)
	for member := range ch.members {
		if member.caps[redactionCap] && (member != c || c.caps["echo-message"]) {
			member.deliver(event)
		}
	}
}
