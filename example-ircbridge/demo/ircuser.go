package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircreader"
)

// ircUser is a person with an IRC client: it says lines and remembers what it saw.
type ircUser struct {
	nick string
	conn net.Conn

	mu      sync.Mutex
	seen    []ircmsg.Message
	changed chan struct{}
	ended   chan struct{}
}

func joinIRC(ctx context.Context, address, nick, channel string) (*ircUser, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	u := &ircUser{nick: nick, conn: conn, changed: make(chan struct{}), ended: make(chan struct{})}
	go u.read()
	for _, line := range []string{
		"CAP REQ :message-tags server-time", "NICK " + nick, "USER " + nick + " 0 * :" + nick + " of the demo", "CAP END", "JOIN " + channel,
	} {
		if err := u.write(line); err != nil {
			return nil, err
		}
	}
	_, err = u.wait(ctx, "being in "+channel, func(m ircmsg.Message) bool { return m.Command == "366" })
	return u, err
}

func (u *ircUser) write(line string) error {
	_, err := fmt.Fprintf(u.conn, "%s\r\n", line)
	return err
}

func (u *ircUser) say(channel, text string) error { return u.write("PRIVMSG " + channel + " :" + text) }

func (u *ircUser) act(channel, text string) error {
	return u.write("PRIVMSG " + channel + " :\x01ACTION " + text + "\x01")
}

func (u *ircUser) read() {
	defer close(u.ended)
	var reader ircreader.Reader
	reader.Initialize(u.conn, 512, 16384)
	for {
		line, err := reader.ReadLine()
		if err != nil {
			return
		}
		m, err := ircmsg.ParseLine(string(bytes.ToValidUTF8(line, []byte("?"))))
		if err != nil {
			continue
		}
		if m.Command == "PING" {
			if u.write("PONG :"+strings.Join(m.Params, " ")) != nil {
				return
			}
		}
		u.mu.Lock()
		u.seen = append(u.seen, m)
		close(u.changed)
		u.changed = make(chan struct{})
		u.mu.Unlock()
	}
}

// wait returns the first message that matches, seen already or yet to come.
func (u *ircUser) wait(ctx context.Context, what string, match func(ircmsg.Message) bool) (ircmsg.Message, error) {
	for from := 0; ; {
		u.mu.Lock()
		seen, changed := u.seen[from:], u.changed
		from = len(u.seen)
		u.mu.Unlock()
		for _, m := range seen {
			if match(m) {
				return m, nil
			}
		}
		select {
		case <-changed:
		case <-u.ended:
			return ircmsg.Message{}, fmt.Errorf("%s on IRC: the connection ended while waiting for %s", u.nick, what)
		case <-ctx.Done():
			return ircmsg.Message{}, fmt.Errorf("%s on IRC did not see %s", u.nick, what)
		}
	}
}

// waitText waits for a line in a channel that contains text.
func (u *ircUser) waitText(ctx context.Context, text string) (ircmsg.Message, error) {
	return u.wait(ctx, fmt.Sprintf("%q", text), func(m ircmsg.Message) bool {
		return (m.Command == "PRIVMSG" || m.Command == "NOTICE") && len(m.Params) == 2 && strings.Contains(m.Params[1], text)
	})
}

func (u *ircUser) close() {
	u.conn.Close()
	<-u.ended
}
