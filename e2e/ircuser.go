package e2e

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircreader"
)

// IRCUser is a person on an IRC server, connected with a client of ten lines that keeps everything it has read.
type IRCUser struct {
	Nick string

	tb      testing.TB
	conn    net.Conn
	changed chan struct{} // closed and replaced when something was added
	gone    chan struct{} // closed when the connection has ended

	mu    sync.Mutex
	lines []ircmsg.Message
	raw   []string
}

// User connects a user without TLS and without capabilities, as the plainest client would.
func (s *IRCServer) User(nick string) *IRCUser {
	s.tb.Helper()
	conn, err := net.DialTimeout("tcp", s.Address, 10*time.Second)
	if err != nil {
		s.tb.Fatalf("%s connects to %s: %v", nick, s.Kind, err)
	}
	return startIRCUser(s.tb, conn, nick)
}

// UserTLS connects a user with TLS.
func (s *IRCServer) UserTLS(nick string) *IRCUser {
	s.tb.Helper()
	conn, err := tls.Dial("tcp", s.TLS, &tls.Config{RootCAs: s.Roots})
	if err != nil {
		s.tb.Fatalf("%s connects to %s with TLS: %v", nick, s.Kind, err)
	}
	return startIRCUser(s.tb, conn, nick)
}

func startIRCUser(tb testing.TB, conn net.Conn, nick string) *IRCUser {
	tb.Helper()
	u := &IRCUser{Nick: nick, tb: tb, conn: conn, changed: make(chan struct{}), gone: make(chan struct{})}
	go u.read()
	tb.Cleanup(func() {
		conn.Close()
		<-u.gone
		if tb.Failed() {
			tb.Logf("what %s has read on IRC:\n  %s", nick, strings.Join(u.raw, "\n  "))
		}
	})
	u.Line("NICK", nick)
	u.Line("USER", strings.ToLower(nick), "0", "*", "A person called "+nick)
	u.WaitFor("the server's welcome", Command("001"))
	return u
}

func (u *IRCUser) read() {
	defer close(u.gone)
	reader := ircreader.NewIRCReader(u.conn)
	for {
		line, err := reader.ReadLine()
		if err != nil {
			return
		}
		msg, err := ircmsg.ParseLine(string(line))
		if err != nil {
			continue
		}
		if msg.Command == "PING" {
			u.write("PONG", msg.Params...)
		}
		u.mu.Lock()
		u.lines = append(u.lines, msg)
		u.raw = append(u.raw, string(line))
		close(u.changed)
		u.changed = make(chan struct{})
		u.mu.Unlock()
	}
}

func (u *IRCUser) write(command string, params ...string) error {
	msg := ircmsg.MakeMessage(nil, "", command, params...)
	line, err := msg.LineBytesStrict(true, 512)
	if err != nil {
		return err
	}
	_, err = u.conn.Write(line)
	return err
}

// Line sends one line.
func (u *IRCUser) Line(command string, params ...string) {
	u.tb.Helper()
	if err := u.write(command, params...); err != nil {
		u.tb.Fatalf("%s sends %s: %v", u.Nick, command, err)
	}
}

// Join enters a channel, and returns when the server has said so.
func (u *IRCUser) Join(channel string) {
	u.tb.Helper()
	u.Line("JOIN", channel)
	u.WaitFor("its own joining of "+channel, func(m ircmsg.Message) bool {
		return m.Command == "366" && len(m.Params) > 1 && strings.EqualFold(m.Params[1], channel)
	})
}

// Say sends a message.
func (u *IRCUser) Say(target, text string) { u.tb.Helper(); u.Line("PRIVMSG", target, text) }

// Act sends an action: /me.
func (u *IRCUser) Act(target, text string) {
	u.tb.Helper()
	u.Line("PRIVMSG", target, "\x01ACTION "+text+"\x01")
}

// Rename changes the nick, and returns when the server has said so.
func (u *IRCUser) Rename(nick string) {
	u.tb.Helper()
	u.Line("NICK", nick)
	u.WaitFor("its own new nick "+nick, func(m ircmsg.Message) bool {
		return m.Command == "NICK" && len(m.Params) > 0 && m.Params[0] == nick
	})
	u.Nick = nick
}

// Quit leaves the network, and returns when the server has closed the connection.
func (u *IRCUser) Quit(reason string) {
	u.tb.Helper()
	u.Line("QUIT", reason)
	select {
	case <-u.gone:
	case <-time.After(patience):
		u.tb.Fatalf("%s has quit, but the server keeps the connection", u.Nick)
	}
}

// WaitFor waits for a line that match accepts, among all that were and will be read. what names it when it does not
// come.
func (u *IRCUser) WaitFor(what string, match func(m ircmsg.Message) bool) ircmsg.Message {
	u.tb.Helper()
	timeout := time.After(patience)
	for {
		u.mu.Lock()
		changed := u.changed
		for _, m := range u.lines {
			if match(m) {
				u.mu.Unlock()
				return m
			}
		}
		u.mu.Unlock()
		select {
		case <-changed:
		case <-u.gone:
			u.mu.Lock()
			again := u.changed != changed // something came before the end: look at it
			u.mu.Unlock()
			if !again {
				u.tb.Fatalf("%s waited for %s, but the connection has ended", u.Nick, what)
			}
		case <-timeout:
			u.tb.Fatalf("%s has not read %s within %s", u.Nick, what, patience)
		}
	}
}

// Seen returns the lines read so far that match accepts.
func (u *IRCUser) Seen(match func(m ircmsg.Message) bool) []ircmsg.Message {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []ircmsg.Message
	for _, m := range u.lines {
		if match(m) {
			list = append(list, m)
		}
	}
	return list
}

// Count says how many of the lines read so far match accepts.
func (u *IRCUser) Count(match func(m ircmsg.Message) bool) int { return len(u.Seen(match)) }

// Command matches lines with a command or numeric.
func Command(command string) func(m ircmsg.Message) bool {
	return func(m ircmsg.Message) bool { return m.Command == command }
}

// Said matches messages to a channel whose text contains all the words; command is PRIVMSG or NOTICE.
func Said(command, channel string, words ...string) func(m ircmsg.Message) bool {
	return func(m ircmsg.Message) bool {
		if m.Command != command || len(m.Params) < 2 || !strings.EqualFold(m.Params[0], channel) {
			return false
		}
		for _, word := range words {
			if !strings.Contains(m.Params[1], word) {
				return false
			}
		}
		return true
	}
}
