package ircd

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

func (s *Server) who(c *client, m *ircmsg.Message) {
	mask := m.Params[0]
	send := func(name string, other *client, prefix string) {
		state := "H"
		if other.away != "" {
			state = "G"
		}
		c.reply("352", name, other.user, other.host, s.opts.Name, other.nick, state+prefix, "0 "+other.realname)
	}
	if ch := s.channel(mask); ch != nil {
		if !ch.modes['s'] || ch.members[c] != nil {
			for other, member := range ch.members {
				if !other.invisible || ch.members[c] != nil {
					send(ch.name, other, member.prefix(c.caps["multi-prefix"]))
				}
			}
		}
	} else {
		for _, nick := range slices.Sorted(maps.Keys(s.clients)) {
			other := s.clients[nick]
			if other.registered && matches(s.mapping.Fold(mask), nick) && (!other.invisible || other == c || nick == s.mapping.Fold(mask)) {
				send("*", other, "")
			}
		}
	}
	c.reply("315", word(mask), "End of /WHO list")
}

func (s *Server) whois(c *client, m *ircmsg.Message) {
	nick := m.Params[len(m.Params)-1]
	other := s.registered(nick)
	if other == nil {
		c.reply("401", word(nick), "No such nick")
		c.reply("318", word(nick), "End of /WHOIS list")
		return
	}
	c.reply("311", other.nick, other.user, other.host, "*", other.realname)
	var names []string
	for _, folded := range slices.Sorted(maps.Keys(s.channels)) {
		ch := s.channels[folded]
		if ch.members[other] != nil && (!ch.modes['s'] || ch.members[c] != nil) {
			names = append(names, ch.members[other].prefix(c.caps["multi-prefix"])+ch.name)
		}
	}
	if len(names) > 0 {
		c.reply("319", other.nick, strings.Join(names, " "))
	}
	c.reply("312", other.nick, s.opts.Name, s.opts.Network)
	if other.account != "" {
		c.reply("330", other.nick, other.account, "is logged in as")
	}
	if other.away != "" {
		c.reply("301", other.nick, other.away)
	}
	c.reply("317", other.nick, count(int(time.Since(other.spoke)/time.Second)), unix(other.since), "seconds idle, signon time")
	c.reply("318", other.nick, "End of /WHOIS list")
}

func (s *Server) ison(c *client, m *ircmsg.Message) {
	var on []string
	for _, nick := range strings.Fields(strings.Join(m.Params, " ")) {
		if other := s.registered(nick); other != nil {
			on = append(on, other.nick)
		}
	}
	c.reply("303", strings.Join(on, " "))
}

func (s *Server) userhost(c *client, m *ircmsg.Message) {
	var found []string
	for i, nick := range strings.Fields(strings.Join(m.Params, " ")) {
		if other := s.registered(nick); other != nil && i < 5 {
			state := "+"
			if other.away != "" {
				state = "-"
			}
			found = append(found, other.nick+"="+state+other.user+"@"+other.host)
		}
	}
	c.reply("302", strings.Join(found, " "))
}

func (s *Server) away(c *client, m *ircmsg.Message) {
	c.away = ""
	if len(m.Params) > 0 {
		c.away = ircmsg.TruncateUTF8Safe(m.Params[0], 200)
	}
	var params []string
	if c.away == "" {
		c.reply("305", "You are no longer marked as being away")
	} else {
		c.reply("306", "You have been marked as being away")
		params = []string{c.away}
	}
	for other := range s.neighbours(c) {
		if other.caps["away-notify"] {
			other.deliver(c.event("AWAY", params...))
		}
	}
}

func (s *Server) lusers(c *client, _ *ircmsg.Message) {
	registered := 0
	for _, other := range s.clients {
		if other.registered {
			registered++
		}
	}
	c.reply("251", "There are "+plural(registered, "user", "users")+" on 1 server")
	c.reply("254", count(len(s.channels)), "channels formed")
	c.reply("255", "I have "+plural(registered, "client", "clients")+" and 0 servers")
}

func (s *Server) version(c *client, _ *ircmsg.Message) {
	c.reply("351", softwareName, s.opts.Name, "")
	s.isupport(c)
}
