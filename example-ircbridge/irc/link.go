package irc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircreader"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

var (
	errNotRegistered = errors.New("not registered")
	errSilent        = errors.New("the server does not answer")
	errNoHandshake   = errors.New("no answer to TLS")
)

// link is one connection to the server. Its fields are guarded by the session's lock, but for queue and ended; its handlers
// run under it, on the reader.
type link struct {
	session *session
	conn    net.Conn
	queue   *queue
	ended   chan struct{} // closed when the link is gone

	nick, user, host string // ours, as others see it; user and host empty until we know
	registration     registration
	ready            bool
	caps             map[string]bool
	support          isupport
	batches          map[string]string // labeled-response batches: reference to label
	history          histories
	after            []func()      // what the handlers want done without the lock: deliveries
	refusal          *refusedError // why the server does not want us
	lastWords        string        // of ERROR
}

// live makes a link and reads it until it ends. The error is never nil.
func (s *session) live() error {
	conn, err := s.dial(s.ctx, &s.config)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotRegistered, err)
	}
	stop := context.AfterFunc(s.ctx, func() { _ = conn.Close() })
	defer stop()
	l := &link{
		session: s, conn: conn, queue: newQueue(conn, &s.config, &s.running), ended: make(chan struct{}),
		caps: map[string]bool{}, support: newISupport(), batches: map[string]string{},
	}
	err = l.read()
	_ = conn.Close()
	l.queue.fail(err)
	s.mu.Lock()
	ready, refusal, lastWords := l.ready, l.refusal, l.lastWords
	if s.link == l {
		s.link = nil
	}
	if ready {
		s.hadHistory, s.redacts, s.reacts = l.hasHistory(), l.redacts(), l.reacts()
	}
	s.crew.lost(s)
	var names []string
	for _, ch := range s.channels {
		names = append(names, ch.name)
		s.crew.leaves(s, ch.name, leaving{})
		ch.unlink()
	}
	s.mu.Unlock()
	close(l.ended)
	for _, name := range names {
		s.crew.release(s.out, name)
	}
	switch {
	case refusal != nil:
		return refusal
	case !ready && lastWords != "":
		return fmt.Errorf("%w: the server said %q", errNotRegistered, lastWords)
	case !ready:
		return fmt.Errorf("%w: %w", errNotRegistered, err)
	}
	return err
}

// read registers and handles lines until the link ends.
func (l *link) read() error {
	s := l.session
	var reader ircreader.Reader
	reader.Initialize(l.conn, 512, ircmsg.MaxlenTags+64<<10)
	fallback := charset(s.config.Encoding)
	s.mu.Lock()
	l.register()
	s.mu.Unlock()
	ready, asked := false, false
	deadline := time.Now().Add(s.config.Reconnect.Timeout) // of registration
	for {
		switch {
		case !ready:
		case asked:
			deadline = time.Now().Add(s.config.Ping.Timeout)
		default:
			deadline = time.Now().Add(s.config.Ping.Interval)
		}
		_ = l.conn.SetReadDeadline(deadline)
		raw, err := reader.ReadLine()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if !ready || asked {
				return errSilent
			}
			asked = true
			l.queue.hurry([]byte("PING alive\r\n"))
			continue
		}
		if err != nil {
			return err
		}
		asked = false
		m, err := parse(decode(raw, fallback))
		if err != nil {
			continue // an empty line, or nothing but a prefix
		}
		s.mu.Lock()
		l.handle(&m)
		ready = l.ready
		refusal := l.refusal
		l.unlock()
		if refusal != nil {
			return refusal
		}
	}
}

// send queues a line that nobody waits for. It is for what our own code makes of clean parts.
func (l *link) send(command string, params ...string) {
	data, err := encode(nil, l.support.lineLen, command, params...)
	if err != nil {
		return
	}
	_ = l.queue.push(line{data: data})
}

// deliver hands an event over once the lock is free. The channel is as the portal has it.
func (l *link) deliver(m *ircmsg.Message, in bridge.Incoming) {
	if present, value := m.GetTag("time"); present {
		if at, err := time.Parse(time.RFC3339Nano, value); err == nil {
			in.Time = at
		}
	}
	if ch := l.session.channels[l.fold(in.Channel)]; ch != nil {
		l.sees(ch, sightOf(&in))
	}
}

func (l *link) sees(ch *channel, sg sight) {
	if l.session.crew.sees(l.session, ch.name, sg) {
		l.release(ch.name)
	}
}

// unlock frees the session's lock, and does what was to be done without it.
func (l *link) unlock() {
	after := l.after
	l.after = nil
	l.session.mu.Unlock()
	for _, fn := range after {
		fn()
	}
}

func (l *link) warn(channel, text string) {
	out := l.session.out
	l.after = append(l.after, func() { out.warn(channel, text) })
}

func (l *link) online() { l.after = append(l.after, l.session.out.online) }

func (l *link) fold(name string) string { return l.support.mapping.Fold(name) }

func (l *link) isMe(nick string) bool { return l.fold(nick) == l.fold(l.nick) }

// remote is a user as Matrix sees it. A sloppy server's nicks may have in them what must not reach a display name.
func (l *link) remote(nick string) bridge.RemoteUser {
	return bridge.RemoteUser{ID: l.fold(nick), Name: shown(nick)}
}

func shown(nick string) string {
	if name := format.Label(nick, 255); name != "" {
		return name
	}
	return "?"
}

// learn takes our prefix as others see it from a message of our own.
func (l *link) learn(m *ircmsg.Message) {
	if nuh, err := m.NUH(); err == nil && nuh.User != "" && nuh.Host != "" && l.isMe(nuh.Name) {
		l.nick, l.user, l.host = nuh.Name, nuh.User, nuh.Host
		l.looks()
	}
}

// prefixLen is the length of our prefix in what others receive, or the most that it can be: a tilde and ten bytes of user
// name, or what we asked for, and 63 bytes of host.
func (l *link) prefixLen() int {
	user, host := len(l.user), len(l.host)
	if user == 0 {
		user = max(len(l.session.config.Username)+1, 11)
	}
	if host == 0 {
		host = 63
	}
	return len(l.nick) + 1 + user + 1 + host
}

// room is how many bytes of text a message to the target may have: the line without ":prefix COMMAND target :" and CRLF.
func (l *link) room(command, target string) int {
	return l.support.lineLen - 1 - l.prefixLen() - 1 - len(command) - 1 - len(target) - 2 - 2
}
