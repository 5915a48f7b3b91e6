package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/example-ircbridge/irc"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
	"github.com/trestle-bridge/trestle/store/storetest"
)

const childVariable = "BRIDGE_UNDER_TEST" // the configuration of the bridge that the test binary is to be

// loggedIn is a bridge in which alice has a login of her own, in #c with the relay and bob.
type loggedIn struct {
	*testing.T
	ctx    context.Context
	hs     *bridgetest.Homeserver
	config *irc.Config
	b      *bridgetest.Bridge
	server *ircd.Server
	alice  *bridgetest.User
	room   id.RoomID
	bob    net.Conn
	lines  *bufio.Scanner
}

func newLoggedIn(t *testing.T, opts ircd.Options, change ...func(*bridge.Config)) *loggedIn {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	l := &loggedIn{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t)}
	var err error
	l.server, err = ircd.Start(opts)
	l.ok(err)
	t.Cleanup(func() { _ = l.server.Close() })
	network := irc.NewNetwork("test")
	settings := network.Config().(*irc.Config)
	l.config = settings
	settings.Address, settings.TLS.Enabled, settings.Logins = l.server.Addr(), false, 1
	settings.Flood, settings.Reconnect.First, settings.Reconnect.Max = irc.Flood{Burst: 1000, Interval: time.Millisecond}, 10*time.Millisecond, 100*time.Millisecond
	l.alice = l.hs.User("alice")
	l.room, err = l.alice.CreateRoom(ctx, bridgetest.RoomOptions{})
	l.ok(err)
	l.b = bridgetest.StartBridge(t, l.hs, network, change...)
	l.ok(l.alice.Invite(ctx, l.room, l.b.BotID()))
	l.sees(bridgetest.Member(l.b.BotID(), "join"))
	l.bob, err = (&net.Dialer{}).DialContext(ctx, "tcp", l.server.Addr())
	l.ok(err)
	t.Cleanup(func() { _ = l.bob.Close() })
	l.lines = bufio.NewScanner(l.bob)
	l.types("NICK bob", "USER bob 0 * :Bob", "JOIN #c")
	l.commands("!irc plumb #c", "now connected")
	l.commands("!irc login alice", "of your own")
	l.isIn("alice")
	return l
}

func (l *loggedIn) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *loggedIn) sees(match func(bridgetest.Event) bool) {
	l.Helper()
	_, err := l.alice.WaitFor(l.ctx, l.room, match)
	l.ok(err)
}

func (l *loggedIn) says(text string) {
	l.Helper()
	_, err := l.alice.SendText(l.ctx, l.room, text)
	l.ok(err)
}

func (l *loggedIn) commands(text, answer string) {
	l.Helper()
	l.says(text)
	l.sees(func(e bridgetest.Event) bool { return e.Sender == l.b.BotID() && strings.Contains(e.Body(), answer) })
}

func (l *loggedIn) types(lines ...string) {
	l.Helper()
	_, err := fmt.Fprintf(l.bob, "%s\r\n", strings.Join(lines, "\r\n"))
	l.ok(err)
}

// reads waits for a line with the text.
func (l *loggedIn) reads(text string) string {
	l.Helper()
	l.ok(l.bob.SetReadDeadline(time.Now().Add(time.Minute)))
	for l.lines.Scan() {
		if strings.Contains(l.lines.Text(), text) {
			return l.lines.Text()
		}
	}
	l.Fatalf("bob never read %q: %v", text, l.lines.Err())
	return ""
}

func (l *loggedIn) isIn(nick string) {
	l.Helper()
	l.until(nick+" is in the channel", func() bool { return slices.Contains(l.server.Members("#c"), nick) })
}

func (l *loggedIn) until(what string, is func() bool) {
	l.Helper()
	for !is() {
		if l.ctx.Err() != nil {
			l.Fatalf("it never was so that %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// heard is what bob has said, as often as it came to Matrix.
func (l *loggedIn) heard() (texts []string) {
	l.Helper()
	events, err := l.alice.Timeline(l.ctx, l.room)
	l.ok(err)
	for _, e := range events {
		if e.Type == "m.room.message" && e.Sender == l.b.GhostID(bridge.RemoteUser{ID: "bob"}) {
			texts = append(texts, e.Body())
		}
	}
	return texts
}

func (l *loggedIn) heardOnce(n int) {
	l.Helper()
	got := l.heard()
	for i := range n {
		if i >= len(got) || got[i] != fmt.Sprint("line ", i) {
			l.Fatalf("of %d lines these came, from number %d on: %q", n, i, got[min(i, len(got)):])
		}
	}
	if len(got) != n {
		l.Fatalf("%d lines came, of %d: at the end %q", len(got), n, got[n:])
	}
}

// onBoth runs a test on each kind of database.
func onBoth(t *testing.T, test func(t *testing.T, change func(*bridge.Config))) {
	for name, uri := range map[string]func(testing.TB) string{"SQLite": storetest.SQLite, "PostgreSQL": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			test(t, func(c *bridge.Config) { c.Database = uri(t) })
		})
	}
}

func TestLogin_UserSpeaksByItself_AndLinesComeOnce(t *testing.T) {
	onBoth(t, speaksByItself)
}

func speaksByItself(t *testing.T, change func(*bridge.Config)) {
	for name, opts := range map[string]ircd.Options{"plain": {Capabilities: []string{}}, "with IDs": {}} {
		t.Run(name, func(t *testing.T) {
			l := newLoggedIn(t, opts, change)
			l.says("by myself")
			if line := l.reads("by myself"); !strings.Contains(line, ":alice!") || !strings.HasSuffix(line, "PRIVMSG #c :by myself") {
				t.Errorf("bob read %q", line)
			}
			for i := range 20 {
				l.types(fmt.Sprintf("PRIVMSG #c :line %d", i))
			}
			l.sees(func(e bridgetest.Event) bool { return e.Body() == "line 19" })
			l.commands("!irc login other", "have a login already")
			l.commands("!irc logout", "has ended")
			l.says("by the relay")
			if line := l.reads("by the relay"); !strings.Contains(line, "<alice> by the relay") {
				t.Errorf("bob read %q", line)
			}
			l.types("PRIVMSG #c :line 20")
			l.sees(func(e bridgetest.Event) bool { return e.Body() == "line 20" })
			l.heardOnce(21)
			if slices.Contains(l.server.Members("#c"), "alice") {
				t.Error("the login is still in the channel")
			}
			members, err := l.alice.Members(l.ctx, l.room)
			l.ok(err)
			if _, in := members[l.b.GhostID(bridge.RemoteUser{ID: "alice"})]; in {
				t.Error("the user's own login has a ghost")
			}
		})
	}
}

// The session that receives is cut off in the middle of a stream of lines, without an ID by which anybody could tell them apart.
func TestLogin_ConnectionsAreCutInAStream_NothingIsLostOrDoubled(t *testing.T) {
	l := newLoggedIn(t, ircd.Options{Capabilities: []string{}})
	n := 0
	for cut := range 8 {
		victim := []string{"trestle", "alice"}[cut%2]
		for i := range 40 {
			l.types(fmt.Sprintf("PRIVMSG #c :line %d", n))
			n++
			if i == 20 {
				l.server.Disconnect(victim)
			}
		}
		l.says(fmt.Sprintf("word %d", cut))
		l.reads(fmt.Sprintf("word %d", cut))
		last := fmt.Sprint("line ", n-1)
		l.sees(func(e bridgetest.Event) bool { return e.Body() == last })
		l.isIn(victim)
		time.Sleep(50 * time.Millisecond) // the victim has its own JOIN before the other is cut off: else nobody need be there for a moment
	}
	l.heardOnce(n)
}

func TestLogin_ConfigurationLetsNobodyHaveOne_ThoseThatThereAreStayAway(t *testing.T) {
	l := newLoggedIn(t, ircd.Options{})
	l.b.Stop()
	l.until("alice is gone", func() bool { return !slices.Contains(l.server.Members("#c"), "alice") })
	l.config.Logins = 0
	l.b.Start()
	l.isIn("trestle")
	l.says("by the relay")
	l.reads("<alice> by the relay")
	time.Sleep(100 * time.Millisecond) // a login that is opened has come by then, as a rule
	if slices.Contains(l.server.Members("#c"), "alice") {
		t.Error("the login is connected")
	}
	l.commands("!irc logout", "has ended")
}

// The network's history has what a login has said that there is no more.
func TestLogin_EndedBeforeARestart_ItsWordsDoNotComeBack(t *testing.T) {
	l := newLoggedIn(t, ircd.Options{History: 1000})
	l.types("PRIVMSG #c :line 0")
	l.sees(func(e bridgetest.Event) bool { return e.Body() == "line 0" })
	l.says("mine")
	l.reads("mine")
	l.commands("!irc logout", "has ended")
	l.b.Stop()
	l.b.Start()
	l.isIn("trestle")
	l.types("PRIVMSG #c :line 1")
	l.sees(func(e bridgetest.Event) bool { return e.Body() == "line 1" })
	events, err := l.alice.Timeline(l.ctx, l.room)
	l.ok(err)
	for _, e := range events {
		if e.Type == "m.room.message" && e.Sender == l.b.GhostID(bridge.RemoteUser{ID: "alice"}) {
			t.Errorf("what alice said came back to her: %q", e.Body())
		}
	}
}

// The bridge is killed in the middle of a stream, on a network with a history: both ways everything is there once.
func TestLogin_BridgeIsKilled_NothingIsLostOrDoubled(t *testing.T) { onBoth(t, isKilled) }

func isKilled(t *testing.T, change func(*bridge.Config)) {
	l := newLoggedIn(t, ircd.Options{History: 10_000}, change)
	l.b.Stop()
	config := filepath.Join(t.TempDir(), "config.yaml")
	a := l.b.Config.Appservice
	l.ok(os.WriteFile(config, fmt.Appendf(nil, `
homeserver: {address: %q, domain: %q}
appservice: {listen: %q, address: %q, registration: %q}
database: %q
media: {listen: %q, public_url: %q}
network:
  address: %q
  tls: {enabled: false}
  logins: 1
  flood: {burst: 1000, interval: 1ms}
  reconnect: {first: 10ms, max: 100ms}
`, l.hs.URL(), l.hs.Domain(), a.Listen, a.Address, a.Registration, l.b.Config.Database, l.b.Config.Media.Listen, l.b.Config.Media.PublicURL, l.server.Addr()), 0o600))
	n := 0
	speak := func(lines int) {
		for range lines {
			l.types(fmt.Sprintf("PRIVMSG #c :line %d", n))
			n++
		}
	}
	const kills = 6
	var log strings.Builder
	for kill := range kills + 1 {
		child := exec.Command(os.Args[0], "run", "-config", config)
		child.Env = append(os.Environ(), childVariable+"=1")
		child.Stderr = &log
		l.ok(child.Start())
		speak(20)
		l.says(fmt.Sprintf("word %d", kill))
		if kill < kills {
			l.isIn("trestle")
			l.isIn("alice")
			speak(20)
			time.Sleep(time.Duration(kill) * 30 * time.Millisecond)
			l.ok(child.Process.Kill())
			_ = child.Wait()
			speak(20)
			continue
		}
		defer func() {
			_ = child.Process.Kill()
			_ = child.Wait()
			if t.Failed() {
				t.Log(log.String())
			}
		}()
	}
	speak(1)
	last := fmt.Sprint("line ", n-1)
	l.sees(func(e bridgetest.Event) bool { return e.Body() == last })
	l.heardOnce(n)
	l.says("the last word")
	words := map[string]int{}
	l.ok(l.bob.SetReadDeadline(time.Now().Add(time.Minute)))
	for words["the last word"] == 0 && l.lines.Scan() {
		if _, text, ok := strings.Cut(l.lines.Text(), " PRIVMSG #c :"); ok {
			words[strings.TrimPrefix(text, "<alice> ")]++
		}
	}
	for kill := range kills + 1 {
		if word := fmt.Sprintf("word %d", kill); words[word] != 1 {
			t.Errorf("%q is on IRC %d times", word, words[word])
		}
	}
	events, err := l.alice.Timeline(l.ctx, l.room)
	l.ok(err)
	for _, e := range events {
		if e.Type == "m.room.message" && e.Sender == l.b.GhostID(bridge.RemoteUser{ID: "alice"}) {
			t.Errorf("what alice said came back to her: %q", e.Body())
		}
	}
}
