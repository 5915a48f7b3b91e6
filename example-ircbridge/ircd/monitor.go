package ircd

import (
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
)

const maxMonitored = 100

// monitor is https://ircv3.net/specs/extensions/monitor.
func (s *Server) monitor(c *client, m *ircmsg.Message) {
	var targets []string
	if len(m.Params) > 1 {
		targets = strings.Split(m.Params[1], ",")
	}
	switch strings.ToUpper(m.Params[0]) {
	case "+":
		for _, nick := range targets {
			if !validNick(nick) {
				continue
			}
			if len(c.monitored) >= maxMonitored {
				c.reply("734", count(maxMonitored), nick, "Monitor list is full.")
				return
			}
			c.monitored[s.mapping.Fold(nick)] = nick
			s.presence(c, nick)
		}
	case "-":
		for _, nick := range targets {
			delete(c.monitored, s.mapping.Fold(nick))
		}
	case "C":
		clear(c.monitored)
	case "L":
		for _, nick := range c.monitored {
			c.reply("732", nick)
		}
		c.reply("733", "End of MONITOR list")
	case "S":
		for _, nick := range c.monitored {
			s.presence(c, nick)
		}
	}
}

func (s *Server) presence(c *client, nick string) {
	if other := s.registered(nick); other != nil {
		c.reply("730", other.prefix())
	} else {
		c.reply("731", nick)
	}
}

// tellMonitors tells whoever asked that a nick came or went.
func (s *Server) tellMonitors(nick string, on bool) {
	folded := s.mapping.Fold(nick)
	for c := range s.links {
		if _, asked := c.monitored[folded]; !asked || c.gone {
			continue
		}
		if other := s.clients[folded]; on && other != nil {
			c.reply("730", other.prefix())
		} else if !on {
			c.reply("731", nick)
		}
	}
}
