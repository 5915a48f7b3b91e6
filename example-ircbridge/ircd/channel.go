package ircd

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// channel is guarded by the server's lock, and exists while it has members.
type channel struct {
	name    string
	members map[*client]*member
	topic   string
	topicBy string
	topicAt time.Time
	modes   map[byte]bool // of i, m, n, s, t
	key     string
	limit   int
	bans    []string
	invited map[*client]bool
	created int64 // Unix seconds
}

type member struct{ op, voice bool }

func (m *member) prefix(all bool) string {
	switch {
	case m.op && m.voice && all:
		return "@+"
	case m.op:
		return "@"
	case m.voice:
		return "+"
	}
	return ""
}

func (s *Server) channel(name string) *channel { return s.channels[s.mapping.Fold(name)] }

func (s *Server) validChannel(name string) bool {
	return len(name) > 1 && len(name) <= s.opts.ChannelLen && (name[0] == '#' || name[0] == '&') &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == ',' || r == ':' })
}

func (s *Server) join(c *client, m *ircmsg.Message) {
	if m.Params[0] == "0" {
		for _, ch := range s.channels {
			if ch.members[c] != nil {
				s.leave(ch, c, "PART", ch.name)
			}
		}
		return
	}
	var keys []string
	if len(m.Params) > 1 {
		keys = strings.Split(m.Params[1], ",")
	}
	for i, name := range strings.Split(m.Params[0], ",") {
		key := ""
		if i < len(keys) {
			key = keys[i]
		}
		s.enter(c, name, key)
	}
}

func (s *Server) enter(c *client, name, key string) {
	if !s.validChannel(name) {
		c.reply("403", word(name), "No such channel")
		return
	}
	ch, joined := s.channel(name), &member{}
	if ch == nil {
		ch = &channel{
			name: name, members: map[*client]*member{}, invited: map[*client]bool{},
			modes: map[byte]bool{'n': true, 't': true}, created: time.Now().Unix(),
		}
		s.channels[s.mapping.Fold(name)] = ch
		joined.op = true
	}
	if ch.members[c] != nil {
		return
	}
	switch {
	case ch.modes['i'] && !ch.invited[c]:
		c.reply("473", ch.name, "Cannot join channel (+i)")
		return
	case ch.key != "" && key != ch.key:
		c.reply("475", ch.name, "Cannot join channel (+k)")
		return
	case s.banned(ch, c) && !ch.invited[c]:
		c.reply("474", ch.name, "Cannot join channel (+b)")
		return
	case ch.limit > 0 && len(ch.members) >= ch.limit && !ch.invited[c]:
		c.reply("471", ch.name, "Cannot join channel (+l)")
		return
	}
	delete(ch.invited, c)
	ch.members[c] = joined
	bare := c.event("JOIN", ch.name)
	extended := c.event("JOIN", ch.name, first(c.account, "*"), c.realname)
	for other := range ch.members {
		if other.caps["extended-join"] {
			other.deliver(extended)
		} else {
			other.deliver(bare)
		}
		if c.away != "" && other != c && other.caps["away-notify"] {
			other.deliver(c.event("AWAY", c.away))
		}
	}
	if ch.topic != "" {
		s.sendTopic(c, ch)
	}
	s.sendNames(c, ch)
}

func (s *Server) part(c *client, m *ircmsg.Message) {
	for _, name := range strings.Split(m.Params[0], ",") {
		ch := s.mine(c, name)
		if ch == nil {
			continue
		}
		params := []string{ch.name}
		if len(m.Params) > 1 {
			params = append(params, m.Params[1])
		}
		s.leave(ch, c, "PART", params...)
	}
}

// mine finds a channel that the client is in, or tells it that there is none, or that it is not in there.
func (s *Server) mine(c *client, name string) *channel {
	ch := s.channel(name)
	switch {
	case ch == nil:
		c.reply("403", word(name), "No such channel")
	case ch.members[c] == nil:
		c.reply("442", ch.name, "You're not on that channel")
	default:
		return ch
	}
	return nil
}

// operated is mine for what only a channel's operators may do.
func (s *Server) operated(c *client, name string) *channel {
	ch := s.mine(c, name)
	if ch != nil && !ch.members[c].op {
		c.reply("482", ch.name, "You're not channel operator")
		return nil
	}
	return ch
}

func (s *Server) leave(ch *channel, c *client, command string, params ...string) {
	ch.everyone(c.event(command, params...), nil)
	s.remove(ch, c)
}

func (s *Server) remove(ch *channel, c *client) {
	delete(ch.members, c)
	delete(ch.invited, c)
	if len(ch.members) == 0 {
		delete(s.channels, s.mapping.Fold(ch.name))
	}
}

func (s *Server) kick(c *client, m *ircmsg.Message) {
	ch := s.operated(c, m.Params[0])
	if ch == nil {
		return
	}
	victim := s.clients[s.mapping.Fold(m.Params[1])]
	if victim == nil || ch.members[victim] == nil {
		c.reply("441", word(m.Params[1]), ch.name, "They aren't on that channel")
		return
	}
	reason := c.nick
	if len(m.Params) > 2 && m.Params[2] != "" {
		reason = m.Params[2]
	}
	ch.everyone(c.event("KICK", ch.name, victim.nick, reason), nil)
	s.remove(ch, victim)
}

func (s *Server) invite(c *client, m *ircmsg.Message) {
	guest := s.registered(m.Params[0])
	if guest == nil {
		c.reply("401", word(m.Params[0]), "No such nick")
		return
	}
	ch := s.mine(c, m.Params[1])
	switch {
	case ch == nil:
		return
	case ch.members[guest] != nil:
		c.reply("443", guest.nick, ch.name, "is already on channel")
		return
	case ch.modes['i'] && !ch.members[c].op:
		c.reply("482", ch.name, "You're not channel operator")
		return
	}
	ch.invited[guest] = true
	c.reply("341", guest.nick, ch.name)
	guest.deliver(c.event("INVITE", guest.nick, ch.name))
}

func (s *Server) topic(c *client, m *ircmsg.Message) {
	if len(m.Params) == 1 {
		if ch := s.mine(c, m.Params[0]); ch != nil {
			s.sendTopic(c, ch)
		}
		return
	}
	ch := s.mine(c, m.Params[0])
	if ch == nil {
		return
	}
	if ch.modes['t'] && !ch.members[c].op {
		c.reply("482", ch.name, "You're not channel operator")
		return
	}
	ch.topic = ircmsg.TruncateUTF8Safe(m.Params[1], s.opts.TopicLen)
	ch.topicBy, ch.topicAt = c.prefix(), time.Now()
	ch.everyone(c.event("TOPIC", ch.name, ch.topic), nil)
}

func (s *Server) sendTopic(c *client, ch *channel) {
	if ch.topic == "" {
		c.reply("331", ch.name, "No topic is set")
		return
	}
	c.reply("332", ch.name, ch.topic)
	c.reply("333", ch.name, ch.topicBy, unix(ch.topicAt))
}

func (s *Server) names(c *client, m *ircmsg.Message) {
	if len(m.Params) == 0 {
		c.reply("366", "*", "End of /NAMES list")
		return
	}
	name, _, _ := strings.Cut(m.Params[0], ",")
	ch := s.channel(name)
	if ch == nil || ch.modes['s'] && ch.members[c] == nil {
		c.reply("366", word(name), "End of /NAMES list")
		return
	}
	s.sendNames(c, ch)
}

func (s *Server) sendNames(c *client, ch *channel) {
	kind := "="
	if ch.modes['s'] {
		kind = "@"
	}
	var names []string
	for other, m := range ch.members {
		names = append(names, m.prefix(c.caps["multi-prefix"])+other.nick)
	}
	slices.Sort(names)
	room := s.opts.LineLen - len(s.opts.Name) - len(c.nick) - len(ch.name) - 20
	line := ""
	for _, name := range names {
		if line != "" && len(line)+1+len(name) > room {
			c.reply("353", kind, ch.name, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += name
	}
	if line != "" {
		c.reply("353", kind, ch.name, line)
	}
	c.reply("366", ch.name, "End of /NAMES list")
}

func (s *Server) list(c *client, m *ircmsg.Message) {
	var only []string
	if len(m.Params) > 0 && m.Params[0] != "" {
		for _, name := range strings.Split(m.Params[0], ",") {
			only = append(only, s.mapping.Fold(name))
		}
	}
	c.reply("321", "Channel", "Users  Name")
	for _, folded := range slices.Sorted(maps.Keys(s.channels)) {
		ch := s.channels[folded]
		if ch.modes['s'] && ch.members[c] == nil || only != nil && !slices.Contains(only, folded) {
			continue
		}
		c.reply("322", ch.name, count(len(ch.members)), ch.topic)
	}
	c.reply("323", "End of /LIST")
}

func (s *Server) registered(nick string) *client {
	if c := s.clients[s.mapping.Fold(nick)]; c != nil && c.registered {
		return c
	}
	return nil
}
