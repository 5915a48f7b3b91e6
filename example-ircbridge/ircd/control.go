package ircd

import (
	"maps"
	"slices"

	"github.com/ergochat/irc-go/ircmsg"
)

// with runs fn under the lock for a registered client, and reports whether there is one.
func (s *Server) with(nick string, fn func(c *client)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.registered(nick)
	if c != nil {
		fn(c)
	}
	return c != nil
}

// Disconnect cuts a client's link without a word, as a network failure does. It reports whether the nick was known.
func (s *Server) Disconnect(nick string) bool {
	return s.with(nick, func(c *client) {
		c.quit("Connection reset by peer")
		_ = c.conn.Close()
	})
}

// Kill closes a client's link with KILL and ERROR, as an operator does.
func (s *Server) Kill(nick, reason string) bool {
	return s.with(nick, func(c *client) {
		c.fromServer("KILL", c.nick, reason)
		c.close("Killed (" + s.opts.Name + " (" + reason + "))")
	})
}

// Ban closes a client's link as a K-line does: with 465 and an ERROR that names the line.
func (s *Server) Ban(nick, reason string) bool {
	return s.with(nick, func(c *client) {
		c.reply("465", "You are banned from this server: "+reason)
		c.close("K-Lined: " + reason)
	})
}

// Hold makes the server read and log a client's lines without acting on them (hold true). When it goes on (false), the
// lines that were held are acted on in order.
func (s *Server) Hold(nick string, hold bool) bool {
	return s.with(nick, func(c *client) {
		c.hold = hold
		if !hold {
			held := c.held
			c.held = nil
			for _, line := range held {
				c.run(line)
			}
		}
	})
}

// Inject sends one raw line to a client, as it is.
func (s *Server) Inject(nick, line string) bool {
	return s.with(nick, func(c *client) { c.enqueue([]byte(line + "\r\n")) })
}

// Do runs a line as if a client had sent it, without counting it as one of its lines.
func (s *Server) Do(nick, line string) bool {
	return s.with(nick, func(c *client) { c.run(line) })
}

// Op makes a client operator of a channel, or takes that away.
func (s *Server) Op(channelName, nick string, op bool) bool {
	done := false
	s.with(nick, func(c *client) {
		ch := s.channel(channelName)
		if ch == nil || ch.members[c] == nil {
			return
		}
		ch.members[c].op = op
		letter := "+o"
		if !op {
			letter = "-o"
		}
		ch.everyone(ircmsg.MakeMessage(nil, s.opts.Name, "MODE", ch.name, letter, c.nick), nil)
		done = true
	})
	return done
}

// Lines are the lines received from the clients that have or had the nick, oldest client first. Of each client the newest
// 2,000 are kept, and of clients that are gone the last 64.
func (s *Server) Lines(nick string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	folded := s.mapping.Fold(nick)
	var lines []string
	for _, c := range s.past {
		if c.nicks[folded] {
			lines = append(lines, c.lines...)
		}
	}
	for c := range s.links {
		if c.nicks[folded] {
			lines = append(lines, c.lines...)
		}
	}
	return lines
}

// Nicks are the registered clients' nicks, sorted.
func (s *Server) Nicks() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nicks []string
	for _, c := range s.clients {
		if c.registered {
			nicks = append(nicks, c.nick)
		}
	}
	slices.Sort(nicks)
	return nicks
}

// Members are the nicks in a channel, sorted, without prefixes.
func (s *Server) Members(channelName string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nicks []string
	if ch := s.channel(channelName); ch != nil {
		for c := range maps.Keys(ch.members) {
			nicks = append(nicks, c.nick)
		}
	}
	slices.Sort(nicks)
	return nicks
}

// Topic is a channel's topic.
func (s *Server) Topic(channelName string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ch := s.channel(channelName); ch != nil {
		return ch.topic
	}
	return ""
}
