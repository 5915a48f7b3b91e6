package ircd

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

func (s *Server) mode(c *client, m *ircmsg.Message) {
	if target := m.Params[0]; target != "" && target[0] != '#' && target[0] != '&' {
		s.userMode(c, m)
		return
	}
	ch := s.channel(m.Params[0])
	switch {
	case ch == nil:
		c.reply("403", word(m.Params[0]), "No such channel")
	case len(m.Params) == 1:
		c.reply("324", append([]string{ch.name}, ch.modeParams(ch.members[c] != nil)...)...)
		c.reply("329", ch.name, strconv.FormatInt(ch.created, 10))
	case strings.Trim(m.Params[1], "+b") == "" && len(m.Params) == 2:
		for _, mask := range ch.bans {
			c.reply("367", ch.name, mask)
		}
		c.reply("368", ch.name, "End of channel ban list")
	default:
		if s.operated(c, m.Params[0]) != nil {
			s.change(c, ch, m.Params[1], m.Params[2:])
		}
	}
}

func (ch *channel) modeParams(inside bool) []string {
	letters, params := "+", []string{}
	for _, letter := range slices.Sorted(maps.Keys(ch.modes)) {
		letters += string(letter)
	}
	if ch.key != "" {
		letters += "k"
		if inside {
			params = append(params, ch.key)
		}
	}
	if ch.limit > 0 {
		letters += "l"
		params = append(params, strconv.Itoa(ch.limit))
	}
	return append([]string{letters}, params...)
}

// change applies the changes that are possible and tells the channel of those.
func (s *Server) change(c *client, ch *channel, letters string, params []string) {
	done := changes{}
	on := true
	next := func() string {
		if len(params) == 0 {
			return ""
		}
		p := params[0]
		params = params[1:]
		return p
	}
	for _, letter := range []byte(letters) {
		switch letter {
		case '+', '-':
			on = letter == '+'
		case 'i', 'm', 'n', 's', 't':
			if ch.modes[letter] != on {
				if on {
					ch.modes[letter] = true
				} else {
					delete(ch.modes, letter)
				}
				done.add(on, letter, "")
			}
		case 'o', 'v':
			nick := next()
			other := s.registered(nick)
			if other == nil || ch.members[other] == nil {
				c.reply("441", word(nick), ch.name, "They aren't on that channel")
				continue
			}
			flag := &ch.members[other].op
			if letter == 'v' {
				flag = &ch.members[other].voice
			}
			if *flag != on {
				*flag = on
				done.add(on, letter, other.nick)
			}
		case 'k':
			key := next()
			switch {
			case on && key != "" && word(key) == key && !strings.Contains(key, ","):
				ch.key = key
				done.add(on, letter, key)
			case !on && ch.key != "":
				ch.key = ""
				done.add(on, letter, "*")
			}
		case 'l':
			if !on {
				if ch.limit > 0 {
					ch.limit = 0
					done.add(on, letter, "")
				}
				continue
			}
			if n, err := strconv.Atoi(next()); err == nil && n > 0 {
				ch.limit = n
				done.add(on, letter, strconv.Itoa(n))
			}
		case 'b':
			mask := next()
			if mask == "" {
				continue
			}
			mask = fullMask(mask)
			at := slices.Index(ch.bans, mask)
			if on && at < 0 && len(ch.bans) < 100 {
				ch.bans = append(ch.bans, mask)
				done.add(on, letter, mask)
			} else if !on && at >= 0 {
				ch.bans = slices.Delete(ch.bans, at, at+1)
				done.add(on, letter, mask)
			}
		default:
			c.reply("472", word(string(rune(letter))), "is unknown mode char to me")
		}
	}
	if done.letters != "" {
		ch.everyone(c.event("MODE", append([]string{ch.name, done.letters}, done.params...)...), nil)
	}
}

// changes collects what a MODE really changed, for the others to see.
type changes struct {
	letters string
	params  []string
	on, any bool
}

func (d *changes) add(on bool, letter byte, param string) {
	if !d.any || d.on != on {
		d.any, d.on = true, on
		if on {
			d.letters += "+"
		} else {
			d.letters += "-"
		}
	}
	d.letters += string(rune(letter))
	if param != "" {
		d.params = append(d.params, param)
	}
}

func (s *Server) userMode(c *client, m *ircmsg.Message) {
	if s.mapping.Fold(m.Params[0]) != s.mapping.Fold(c.nick) {
		c.reply("502", "Can't change mode for other users")
		return
	}
	if len(m.Params) == 1 {
		modes := "+"
		if c.invisible {
			modes = "+i"
		}
		c.reply("221", modes)
		return
	}
	on := true
	for _, letter := range m.Params[1] {
		switch letter {
		case '+', '-':
			on = letter == '+'
		case 'i':
			if c.invisible != on {
				c.invisible = on
				sign := map[bool]string{true: "+i", false: "-i"}[on]
				c.deliver(c.event("MODE", c.nick, sign))
			}
		default:
			c.reply("501", "Unknown MODE flag")
		}
	}
}

// fullMask fills up a mask to nick!user@host.
func fullMask(mask string) string {
	if !strings.Contains(mask, "!") {
		if strings.Contains(mask, "@") {
			mask = "*!" + mask
		} else {
			mask += "!*"
		}
	}
	if !strings.Contains(mask, "@") {
		mask += "@*"
	}
	return mask
}

func (s *Server) banned(ch *channel, c *client) bool {
	name := s.mapping.Fold(c.prefix())
	return slices.ContainsFunc(ch.bans, func(mask string) bool { return matches(s.mapping.Fold(mask), name) })
}

// matches reports whether text matches a mask of * and ?, in time linear in their product at most.
func matches(mask, text string) bool {
	m, t, star, back := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case m < len(mask) && mask[m] == '*':
			star, back = m, t
			m++
		case m < len(mask) && (mask[m] == '?' || mask[m] == text[t]):
			m++
			t++
		case star >= 0:
			back++
			m, t = star+1, back
		default:
			return false
		}
	}
	return strings.Trim(mask[m:], "*") == ""
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func count(n int) string { return strconv.Itoa(n) }
