package irc

import (
	"slices"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// This file knows our own people on the network: what one session says or does, another one in the channel sees as well, and must not take for somebody else's.
// Nor must what somebody else says be taken for ours, who had the nick before or has it in the end: what counts is what the server shows, and not what was
// asked for. A nick alone says it only of now; what is read late, or in the history, has a user name besides, that is as the server shows our own.

// bearer is a session that has a nick, or had it.
type bearer struct {
	s    *session
	gone time.Time // when the link was lost; zero while it is there
}

// look is how others see a session, besides its nick.
type look struct{ user, host string }

const looksMost = 8 // of one session, the newest: what was said before a change may be read after it

// bearing is how long a nick counts as ours, with the same host, after its link was lost: others may read what was said on it later.
const bearing = 5 * time.Minute

// bears says that a session's nick is this.
func (c *crew) bears(s *session, nick, user, host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, b := range c.nicks {
		switch {
		case b.gone.IsZero() && b.s == s:
			b.gone = time.Now()
		case !b.gone.IsZero() && time.Since(b.gone) > bearing:
			delete(c.nicks, other)
		}
	}
	c.nicks[nick] = &bearer{s: s}
	if seen := (look{user, host}); user != "" && host != "" && !slices.Contains(s.looks, seen) {
		s.looks = append(s.looks[max(0, len(s.looks)-looksMost+1):len(s.looks):len(s.looks)], seen)
	}
}

// lost says that a session's link is gone.
func (c *crew) lost(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.nicks {
		if b.s == s && b.gone.IsZero() {
			b.gone = time.Now()
		}
	}
}

// holds says whether one of ours has a nick now.
func (c *crew) holds(nick string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.nicks[nick]
	return b != nil && b.gone.IsZero()
}

// whose is the session that has a nick, or had it a moment ago. user and host are empty where the server does not tell.
func (c *crew) whose(nick, user, host string) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.nicks[nick]
	switch {
	case b == nil:
		return nil
	case !b.gone.IsZero() && (time.Since(b.gone) > bearing || !slices.Contains(b.s.looks, look{user, host})):
		return nil
	case user != "" && len(b.s.looks) > 0 && !slices.ContainsFunc(b.s.looks, func(seen look) bool { return sameUser(seen.user, user) }):
		return nil // who had the nick before us: that is read late
	}
	return b.s
}

// sameUser leaves out the mark of a user name that the server could not check: that depends on the day.
func sameUser(a, b string) bool { return strings.TrimPrefix(a, "~") == strings.TrimPrefix(b, "~") }

// wasOurs says whether a line of the past is of a login of ours, which may not be there now.
func (l *link) wasOurs(m *ircmsg.Message) bool {
	nuh, err := m.NUH()
	if err != nil {
		return false
	}
	c := l.session.crew
	if c.whose(l.fold(nuh.Name), nuh.User, nuh.Host) != nil {
		return true
	}
	if c.relay != nil && l.alike(nuh.Name, &c.relay.config) && nuh.User != "" && strings.HasPrefix(c.relay.config.Username, strings.TrimPrefix(nuh.User, "~")) {
		return true // servers cut what is too long
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idents[strings.TrimPrefix(nuh.User, "~")]
}

// alike says whether a nick is the one that was asked for, or what is asked for when that cannot be had.
func (l *link) alike(nick string, config *Config) bool {
	return strings.TrimRight(l.fold(nick), "_") == strings.TrimRight(l.fold(config.Nick), "_")
}

// isOurs says whether a line of the past is this session's own, of this connection or of an earlier one, which may have had another nick or come from another
// address, but not both.
func (l *link) isOurs(m *ircmsg.Message) bool {
	nuh, err := m.NUH()
	if err != nil {
		return false
	}
	named := l.isMe(nuh.Name) || l.alike(nuh.Name, &l.session.config)
	if l.user == "" || nuh.User == "" { // the server shows no more
		return named
	}
	return sameUser(nuh.User, l.user) && (named || nuh.Host == l.host)
}

// ofOurs handles what another session of ours has done, and says whether it was one.
func (l *link) ofOurs(m *ircmsg.Message) bool {
	nuh, err := m.NUH()
	if err != nil || nuh.Name == "" || l.isMe(nuh.Name) {
		return false
	}
	c := l.session.crew
	who := c.whose(l.fold(nuh.Name), nuh.User, nuh.Host)
	if who == nil || who == l.session {
		return false
	}
	nick := l.fold(nuh.Name)
	switch m.Command {
	case "PRIVMSG", "NOTICE":
		l.fromHistory(m) // there it is looked for, if it is in doubt
	case "TAGMSG", "TOPIC", "REDACT":
	case "JOIN":
		l.seesOurs(m.Params[0], sightOfOurs(who, nick, true))
	case "PART":
		sg := sightOfOurs(who, nick, false)
		sg.parted = true
		l.seesOurs(m.Params[0], sg)
		return false // it may have been taken for somebody else when it came
	case "QUIT":
		for _, ch := range l.session.channels {
			l.seesOurs(ch.name, sightOfOurs(who, nick, false))
		}
		return false
	case "NICK":
		to := l.fold(m.Params[0])
		if c.holds(nick) { // else it has read that itself, or this is somebody who looks like it
			c.bears(who, to, nuh.User, nuh.Host)
		}
		for _, ch := range l.session.channels {
			l.seesOurs(ch.name, sightOfOurNick(who, nick, to))
		}
	default:
		return false
	}
	return true
}

func (l *link) seesOurs(channel string, sg sight) {
	if ch := l.in(channel); ch != nil {
		l.sees(ch, sg)
	}
}
