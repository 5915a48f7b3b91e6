package irc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink keeps what happens, in words.
type sink struct {
	mu     sync.Mutex
	said   []string
	events []*bridge.Incoming
	fail   func(in *bridge.Incoming) error
	more   chan struct{}
	since  time.Time
	logger zerolog.Logger
}

func newSink() *sink {
	s := &sink{more: make(chan struct{}, 1)}
	s.logger = zerolog.New(logSink{s})
	return s
}

// logSink makes the log part of what is said.
type logSink struct{ *sink }

func (s logSink) Write(line []byte) (int, error) {
	s.say("log %s", line)
	return len(line), nil
}

func (s *sink) say(format string, args ...any) {
	s.mu.Lock()
	s.said = append(s.said, fmt.Sprintf(format, args...))
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *sink) Deliver(_ context.Context, in *bridge.Incoming) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(in); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.events = append(s.events, in)
	s.mu.Unlock()
	switch {
	case in.Text != nil:
		html, reply := "", ""
		if in.Text.HTML != "" {
			html = " html=" + in.Text.HTML
		}
		if in.Text.ReplyTo != "" {
			reply = " reply=" + in.Text.ReplyTo
		}
		s.say("%s %s %s: %s%s%s", in.Channel, in.Text.Kind, in.Sender.ID, in.Text.Body, html, reply)
	case in.Join != nil:
		s.say("%s join %s", in.Channel, in.Sender.ID)
	case in.Leave != nil:
		s.say("%s leave %s by=%s: %s", in.Channel, in.Sender.ID, in.Leave.By, in.Leave.Reason)
	case in.Rename != nil:
		s.say("%s rename %s to %s", in.Channel, in.Rename.From.ID, in.Sender.Name)
	case in.Topic != nil:
		s.say("%s topic %s: %s", in.Channel, in.Sender.ID, in.Topic.Text)
	case in.Members != nil:
		var names []string
		for _, u := range in.Members.Users {
			names = append(names, u.Name)
		}
		slices.Sort(names)
		s.say("%s members %s", in.Channel, strings.Join(names, " "))
	}
	return nil
}

func (s *sink) Since(context.Context, string) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, nil
}

func (s *sink) Typing(channel string, user bridge.RemoteUser, typing bool) {
	s.say("%s typing %s %v", channel, user.ID, typing)
}

func (s *sink) Online() { s.say("online") }

func (s *sink) Log() *zerolog.Logger { return &s.logger }

func (s *sink) Warn(channel, text string) { s.say("%s warn %s", channel, text) }

// until waits for something said that contains the text, and returns it.
func (s *sink) until(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		for _, line := range s.said {
			if strings.Contains(line, text) {
				s.mu.Unlock()
				return line
			}
		}
		all := strings.Join(s.said, "\n")
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("%q never came; this did:\n%s", text, all)
		}
	}
}

// failWith has the function decide, from now on, whether an event is taken.
func (s *sink) failWith(fail func(in *bridge.Incoming) error) {
	s.mu.Lock()
	s.fail = fail
	s.mu.Unlock()
}

// newest is the event that was delivered last.
func (s *sink) newest() *bridge.Incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[len(s.events)-1]
}

// lines is all that was said so far.
func (s *sink) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.said)
}

func (s *sink) count(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.said {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// fixture is a server, a bridge's session on it, and a witness who sees what IRC users see.
type fixture struct {
	t       *testing.T
	server  *ircd.Server
	sink    *sink
	network *Network
	session bridge.Session
	witness *witness
}

var allCaps = ircd.Options{}
var noCaps = ircd.Options{Capabilities: []string{}}

// withoutDelay runs a test about time in a bubble: its clock goes on when everybody waits, so that a busy machine is as
// fast as an idle one. Servers must be reached without the system, with the options that piping gives.
func withoutDelay(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

// piping is for a server whose users come through pipes.
func piping(opts ircd.Options) ircd.Options {
	opts.Listen = []string{}
	return opts
}

func piped(server *ircd.Server) net.Conn {
	here, there := net.Pipe()
	server.Serve(there)
	return here
}

func testConfig(address string) *Config {
	c := defaultConfig()
	c.Address = address
	c.TLS.Enabled = false
	c.Nick, c.Logins = "bridge", 10
	c.Flood = Flood{Burst: 100, Interval: time.Millisecond}
	c.Reconnect = Reconnect{First: 5 * time.Millisecond, Max: 50 * time.Millisecond, Timeout: 15 * time.Second}
	return c
}

func startServer(t *testing.T, opts ircd.Options) *ircd.Server {
	t.Helper()
	server, err := ircd.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func start(t *testing.T, opts ircd.Options, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, server: startServer(t, opts), sink: newSink()}
	config := testConfig(f.server.Addr())
	for _, fn := range change {
		fn(config)
	}
	f.network = NewNetwork("1.2.3")
	f.network.config = config
	if f.server.Addr() == "" {
		config.Address = "irc.test:6667"
		f.network.dial = func(context.Context, *Config) (net.Conn, error) { return piped(f.server), nil }
	}
	session, err := f.network.Open(t.Context(), &bridge.Login{ID: bridge.RelayLogin}, f.sink)
	if err != nil {
		t.Fatal(err)
	}
	f.session = session
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := session.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	f.witness = newWitness(t, f.server, "witness")
	return f
}

// joined is start, in #c with the witness.
func joined(t *testing.T, opts ircd.Options, change ...func(*Config)) *fixture {
	t.Helper()
	f := start(t, opts, change...)
	f.witness.send("JOIN #c")
	f.witness.until(" 366 ")
	f.join("#c")
	return f
}

func (f *fixture) join(channel string) {
	f.t.Helper()
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), channel); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	f.t.Cleanup(cancel)
	return ctx
}

func message(text string) *bridge.Message {
	return &bridge.Message{
		ID: id.EventID("$" + text), Channel: "#c", Room: "!r:x", Kind: bridge.KindText, Text: text,
		Sender: bridge.Sender{ID: "@alice:example.org", Name: "Alice"},
	}
}

// mustSend sends, again and again while the session is offline.
func (f *fixture) mustSend(msg *bridge.Message) bridge.Sent {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		sent, err := f.session.Send(f.ctx(), msg)
		switch {
		case err == nil:
			return sent
		case !errors.Is(err, bridge.ErrOffline) || time.Now().After(deadline):
			f.t.Fatal(err)
		}
	}
}
