package irc

import (
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// This file knows our own people on the network: what one session says or does, another one in the channel sees as well, and must not take for somebody else's.

// bearer is a session that has a nick, or had it.
type bearer struct {
	s          *session
	user, host string    // as others see them; empty until we know
	gone       time.Time // when the link was lost; zero while it is there
}

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
	c.nicks[nick] = &bearer{s: s, user: user, host: host}
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

// whose is the session that has a nick, or had it a moment ago.
func (c *crew) whose(nick, user, host string) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.nicks[nick]
	if b == nil || !b.gone.IsZero() && (time.Since(b.gone) > bearing || b.host == "" || user != b.user || host != b.host) {
		return nil
	}
	return b.s
}

// wasOurs says whether a line of the past is a login's of ours, which may not be there now.
func (l *link) wasOurs(m *ircmsg.Message) bool {
	nuh, err := m.NUH()
	if err != nil {
		return false
	}
	c := l.session.crew
	if c.whose(l.fold(nuh.Name), nuh.User, nuh.Host) != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ident := c.idents[casemap.ASCII.Fold(nuh.Name)]
	return ident != "" && strings.TrimPrefix(nuh.User, "~") == ident
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
		c.bears(who, to, nuh.User, nuh.Host)
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
