package ircd

import (
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
)

// message is PRIVMSG and NOTICE. A NOTICE is never answered with an error, except that the sender's own label is.
func (s *Server) message(c *client, m *ircmsg.Message) {
	fail := func(numeric string, params ...string) {
		if m.Command != "NOTICE" || c.labeling {
			c.reply(numeric, params...)
		}
	}
	switch {
	case len(m.Params) == 0 || m.Params[0] == "":
		fail("411", "No recipient given ("+m.Command+")")
		return
	case len(m.Params) < 2 || m.Params[1] == "":
		fail("412", "No text to send")
		return
	}
	for i, target := range strings.Split(m.Params[0], ",") {
		if i >= 4 {
			fail("407", word(target), "Too many targets")
			return
		}
		s.relay(c, m, target, fail, m.Params[1])
	}
}

// tagmsg is a message of tags alone (https://ircv3.net/specs/extensions/message-tags).
func (s *Server) tagmsg(c *client, m *ircmsg.Message) {
	fail := func(numeric string, params ...string) { c.reply(numeric, params...) }
	s.relay(c, m, m.Params[0], fail)
}

func (s *Server) relay(c *client, m *ircmsg.Message, target string, fail func(string, ...string), text ...string) {
	event := c.event(m.Command, append([]string{target}, text...)...)
	event.SetTag("msgid", s.nextID())
	event.UpdateTags(m.ClientOnlyTags())
	reach := func(other *client) {
		if m.Command != "TAGMSG" || other.caps["message-tags"] {
			other.deliver(event)
		}
	}
	echo := func() {
		if c.caps["echo-message"] {
			c.deliver(event)
		}
	}
	name, status := target, ""
	for name != "" && strings.IndexByte("@+", name[0]) >= 0 {
		name, status = name[1:], status+name[:1]
	}
	if name == "" || (name[0] != '#' && name[0] != '&') {
		other := s.registered(target)
		if other == nil {
			fail("401", word(target), "No such nick")
			return
		}
		if other.away != "" && m.Command == "PRIVMSG" {
			c.reply("301", other.nick, other.away)
		}
		if other != c || !c.caps["echo-message"] {
			reach(other)
		}
		echo()
		return
	}
	ch := s.channel(name)
	if ch == nil {
		fail("403", word(target), "No such channel")
		return
	}
	if reason := s.muted(ch, c); reason != "" {
		fail("404", ch.name, "Cannot send to channel ("+reason+")")
		return
	}
	event.Params[0] = status + ch.name
	if status == "" {
		s.remember(ch, event)
		s.wrote(ch, c, event)
	}
	for other, member := range ch.members {
		if other == c || strings.Contains(status, "@") && !member.op || status == "+" && !member.voice && !member.op {
			continue
		}
		reach(other)
	}
	echo()
}

// muted says which mode keeps the client from speaking, or nothing.
func (s *Server) muted(ch *channel, c *client) string {
	m := ch.members[c]
	switch {
	case m != nil && (m.op || m.voice):
		return ""
	case m == nil && ch.modes['n']:
		return "+n"
	case ch.modes['m']:
		return "+m"
	case s.banned(ch, c):
		return "+b"
	}
	return ""
}
