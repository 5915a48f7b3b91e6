package ircd

import (
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

func (s *Server) pass(c *client, m *ircmsg.Message) {
	if c.registered {
		c.reply("462", "You may not reregister")
		return
	}
	c.password = m.Params[0]
}

func (s *Server) user(c *client, m *ircmsg.Message) {
	if c.user != "" {
		c.reply("462", "You may not reregister")
		return
	}
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("!@: ", r) || r < ' ' {
			return -1
		}
		return r
	}, m.Params[0])
	c.user = "~" + ircmsg.TruncateUTF8Safe(name, 10)
	c.realname = m.Params[3]
	c.register()
}

func (s *Server) nick(c *client, m *ircmsg.Message) {
	if len(m.Params) == 0 || m.Params[0] == "" {
		c.reply("431", "No nickname given")
		return
	}
	nick := m.Params[0]
	if !validNick(nick) || len(nick) > s.opts.NickLen {
		c.reply("432", word(nick), "Erroneous nickname")
		return
	}
	folded := s.mapping.Fold(nick)
	if other := s.clients[folded]; other != nil && other != c {
		c.reply("433", nick, "Nickname is already in use")
		return
	}
	if nick == c.nick {
		return
	}
	old, change := c.nick, c.event("NICK", nick)
	delete(s.clients, s.mapping.Fold(c.nick))
	c.nick = nick
	c.nicks[folded] = true
	s.clients[folded] = c
	if !c.registered {
		c.register()
		return
	}
	c.deliver(change)
	for other := range s.neighbours(c) {
		other.deliver(change)
	}
	if s.mapping.Fold(old) != folded {
		s.tellMonitors(old, false)
		s.tellMonitors(nick, true)
	}
}

// validNick knows the characters of RFC 2812, section 2.3.1, and lets others than ASCII pass, as many servers do.
func validNick(nick string) bool {
	for i, r := range nick {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', strings.ContainsRune("[]\\`_^{|}", r), r > 0x9f:
		case i > 0 && ('0' <= r && r <= '9' || r == '-'):
		default:
			return false
		}
	}
	return nick != ""
}

// register welcomes the client once everything is there.
func (c *client) register() {
	s := c.server
	if c.registered || c.negotiating || c.nick == "" || c.user == "" {
		return
	}
	if subtle.ConstantTimeCompare([]byte(c.password), []byte(s.opts.Password)) != 1 && s.opts.Password != "" {
		c.reply("464", "Password incorrect")
		c.close("Bad Password")
		return
	}
	c.registered = true
	c.reply("001", "Welcome to the "+s.opts.Network+" IRC network "+c.prefix())
	c.reply("002", "Your host is "+s.opts.Name+", running version "+softwareName)
	c.reply("003", "This server was created "+s.started.UTC().Format(time.RFC1123))
	c.reply("004", s.opts.Name, softwareName, "i", "biklmnostv", "bklov")
	s.isupport(c)
	s.lusers(c, nil)
	s.motd(c, nil)
	s.tellMonitors(c.nick, true)
}

const softwareName = "trestle-ircd"

func (s *Server) isupport(c *client) {
	tokens := []string{
		"AWAYLEN=200", "CASEMAPPING=" + s.opts.CaseMapping, fmt.Sprintf("CHANNELLEN=%d", s.opts.ChannelLen), "CHANMODES=b,k,l,imnst",
		"CHANTYPES=#&", "KICKLEN=300", fmt.Sprintf("LINELEN=%d", s.opts.LineLen), "MODES=20", "MONITOR=100",
		"NETWORK=" + strings.ReplaceAll(s.opts.Network, " ", "\\x20"), fmt.Sprintf("NICKLEN=%d", s.opts.NickLen), "PREFIX=(ov)@+",
		"STATUSMSG=@+", "TARGMAX=PRIVMSG:4,NOTICE:4,JOIN:20,NAMES:1,KICK:1", fmt.Sprintf("TOPICLEN=%d", s.opts.TopicLen), "USERLEN=11",
	}
	if s.opts.History > 0 {
		tokens = append(tokens, fmt.Sprintf("CHATHISTORY=%d", historyLimit), "MSGREFTYPES=msgid,timestamp")
	}
	for len(tokens) > 0 {
		n := min(len(tokens), 13)
		c.reply("005", append(append([]string{}, tokens[:n]...), "are supported by this server")...)
		tokens = tokens[n:]
	}
}

func (s *Server) motd(c *client, _ *ircmsg.Message) {
	if len(s.opts.MOTD) == 0 {
		c.reply("422", "MOTD File is missing")
		return
	}
	c.reply("375", "- "+s.opts.Name+" Message of the day - ")
	for _, line := range s.opts.MOTD {
		c.reply("372", "- "+line)
	}
	c.reply("376", "End of /MOTD command")
}
