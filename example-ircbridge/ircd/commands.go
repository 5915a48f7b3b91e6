package ircd

import (
	"errors"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// command is a row of the table: what runs it, how many parameters it must have, and whether it needs a registered client.
type command struct {
	run        func(s *Server, c *client, m *ircmsg.Message)
	params     int
	registered bool
}

var commands map[string]command

func init() {
	commands = map[string]command{
		"CAP":          {(*Server).cap, 1, false},
		"AUTHENTICATE": {(*Server).authenticate, 1, false},
		"PASS":         {(*Server).pass, 1, false},
		"NICK":         {(*Server).nick, 0, false},
		"USER":         {(*Server).user, 4, false},
		"PING":         {(*Server).ping, 1, false},
		"PONG":         {(*Server).pong, 0, false},
		"QUIT":         {(*Server).quit, 0, false},

		"JOIN":   {(*Server).join, 1, true},
		"PART":   {(*Server).part, 1, true},
		"KICK":   {(*Server).kick, 2, true},
		"INVITE": {(*Server).invite, 2, true},
		"TOPIC":  {(*Server).topic, 1, true},
		"NAMES":  {(*Server).names, 0, true},
		"LIST":   {(*Server).list, 0, true},
		"MODE":   {(*Server).mode, 1, true},

		"PRIVMSG": {(*Server).message, 0, true},
		"NOTICE":  {(*Server).message, 0, true},
		"TAGMSG":  {(*Server).tagmsg, 1, true},
		"REDACT":  {(*Server).redact, 2, true},

		"CHATHISTORY": {(*Server).chatHistory, 1, true},

		"WHO":      {(*Server).who, 1, true},
		"WHOIS":    {(*Server).whois, 1, true},
		"ISON":     {(*Server).ison, 1, true},
		"USERHOST": {(*Server).userhost, 1, true},
		"MONITOR":  {(*Server).monitor, 1, true},
		"AWAY":     {(*Server).away, 0, true},
		"LUSERS":   {(*Server).lusers, 0, true},
		"MOTD":     {(*Server).motd, 0, true},
		"VERSION":  {(*Server).version, 0, true},
	}
}

// run executes one line.
func (c *client) run(line string) {
	s := c.server
	m, err := ircmsg.ParseLineStrict(line, true, s.opts.LineLen)
	switch {
	case errors.Is(err, ircmsg.ErrorTagsTooLong):
		c.reply("417", "Input line was too long")
		return
	case errors.Is(err, ircmsg.ErrorBodyTooLong):
		// Cut, as servers do.
	case err != nil:
		return
	}
	found, ok := commands[m.Command]
	if m.Command == "CAP" && len(s.caps) == 0 || m.Command == "TAGMSG" && !c.caps["message-tags"] ||
		m.Command == "REDACT" && !c.caps[redactionCap] || m.Command == "AUTHENTICATE" && !c.caps["sasl"] || m.Command == "CHATHISTORY" && !c.caps[historyCap] {
		ok = false
	}
	if present, label := m.GetTag("label"); present && c.caps["labeled-response"] && c.caps["batch"] && m.Command != "PONG" {
		c.label, c.labeling = label, true
		defer c.flushLabel()
	}
	switch {
	case !ok:
		c.reply("421", word(m.Command), "Unknown command")
	case found.registered && !c.registered:
		c.reply("451", "You have not registered")
	case len(m.Params) < found.params:
		c.reply("461", m.Command, "Not enough parameters")
	default:
		if m.Command != "PING" && m.Command != "PONG" {
			c.spoke = time.Now()
		}
		found.run(s, c, &m)
	}
}

// word makes text fit to be echoed as a middle parameter.
func word(text string) string {
	if text == "" || text[0] == ':' || strings.ContainsRune(text, ' ') {
		return "*"
	}
	return text
}

func (s *Server) ping(c *client, m *ircmsg.Message) {
	c.fromServer("PONG", s.opts.Name, m.Params[0])
}

func (s *Server) pong(*client, *ircmsg.Message) {}

func (s *Server) quit(c *client, m *ircmsg.Message) {
	reason := "Quit"
	if len(m.Params) > 0 && m.Params[0] != "" {
		reason = "Quit: " + m.Params[0]
	}
	c.close(reason)
}
