package ircd

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
)

// cap is the capability negotiation of https://ircv3.net/specs/extensions/capability-negotiation.
func (s *Server) cap(c *client, m *ircmsg.Message) {
	list := ""
	if len(m.Params) > 1 {
		list = m.Params[1]
	}
	switch strings.ToUpper(m.Params[0]) {
	case "LS":
		version, _ := strconv.Atoi(list)
		c.negotiating = !c.registered
		if version >= 302 && s.offers("cap-notify") {
			c.caps["cap-notify"] = true
		}
		names := slices.Clone(s.caps)
		for i, name := range names {
			if name == "sasl" && version >= 302 {
				names[i] = "sasl=PLAIN"
			}
		}
		c.fromServer("CAP", c.name(), "LS", strings.Join(names, " "))
	case "LIST":
		var names []string
		for name := range c.caps {
			names = append(names, name)
		}
		slices.Sort(names)
		c.fromServer("CAP", c.name(), "LIST", strings.Join(names, " "))
	case "REQ":
		c.negotiating = !c.registered
		wanted := strings.Fields(list)
		for _, name := range wanted {
			if !s.offers(strings.TrimPrefix(name, "-")) {
				c.fromServer("CAP", c.name(), "NAK", list)
				return
			}
		}
		for _, name := range wanted {
			if off, ok := strings.CutPrefix(name, "-"); ok {
				delete(c.caps, off)
			} else {
				c.caps[name] = true
			}
		}
		c.fromServer("CAP", c.name(), "ACK", list)
	case "END":
		c.negotiating = false
		c.register()
	default:
		c.reply("410", word(m.Params[0]), "Invalid CAP command")
	}
}

// SetCapability offers one more capability, or one less, and tells the clients that want to know (CAP NEW, CAP DEL).
func (s *Server) SetCapability(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offers(name) == on {
		return
	}
	verb := "NEW"
	if on {
		s.caps = append(slices.Clone(s.caps), name)
	} else {
		verb = "DEL"
		s.caps = slices.DeleteFunc(slices.Clone(s.caps), func(c string) bool { return c == name })
	}
	for c := range s.links {
		if c.caps["cap-notify"] {
			c.fromServer("CAP", c.name(), verb, name)
		}
		if !on {
			delete(c.caps, name)
		}
	}
}

// authenticate is SASL with the mechanism PLAIN (https://ircv3.net/specs/extensions/sasl-3.1, RFC 4616).
func (s *Server) authenticate(c *client, m *ircmsg.Message) {
	argument := m.Params[0]
	fail := func() {
		c.inSASL, c.sasl = false, nil
		c.reply("904", "SASL authentication failed")
	}
	switch {
	case c.account != "":
		c.reply("907", "You have already authenticated using SASL")
		return
	case !c.inSASL && strings.EqualFold(argument, "PLAIN"):
		c.inSASL, c.sasl = true, nil
		c.respond(ircmsg.MakeMessage(nil, "", "AUTHENTICATE", "+"))
		return
	case !c.inSASL:
		c.reply("908", "PLAIN", "are available SASL mechanisms")
		fail()
		return
	case argument == "*":
		c.inSASL, c.sasl = false, nil
		c.reply("906", "SASL authentication aborted")
		return
	case len(argument) > 400 || len(c.sasl) > 4096:
		c.inSASL, c.sasl = false, nil
		c.reply("905", "SASL message too long")
		return
	}
	if argument != "+" {
		c.sasl = append(c.sasl, argument...)
	}
	if len(argument) == 400 {
		return // more to come
	}
	data, err := base64.StdEncoding.DecodeString(string(c.sasl))
	parts := bytes.Split(data, []byte{0})
	if err != nil || len(parts) != 3 {
		fail()
		return
	}
	account := string(parts[1])
	password, known := s.opts.Accounts[account]
	if subtle.ConstantTimeCompare([]byte(password), parts[2]) != 1 || !known {
		fail()
		return
	}
	c.inSASL, c.sasl, c.account = false, nil, account
	c.reply("900", c.name()+"!"+first(c.user, "*")+"@"+c.host, account, "You are now logged in as "+account)
	c.reply("903", "SASL authentication successful")
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
