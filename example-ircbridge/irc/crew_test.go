package irc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

// login opens a login of a Matrix user's own, in #c.
func (f *fixture) login(nick string) bridge.Session {
	f.t.Helper()
	user := id.NewUserID(nick, "example.org")
	s, err := f.network.Open(f.t.Context(), &bridge.Login{ID: string(user), User: user, Data: json.RawMessage(`{"nick":"` + nick + `"}`)}, f.sink)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			f.t.Error(err)
		}
	})
	f.joins(s)
	return s
}

func (f *fixture) joins(s bridge.Session) {
	f.t.Helper()
	if err := s.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#c"); err != nil {
		f.t.Fatal(err)
	}
}

// all are the messages delivered, those that came twice twice.
func (s *sink) all() (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.events {
		if in.Text != nil {
			texts = append(texts, in.Text.Body)
		}
	}
	return texts
}

func numbered(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprint("line ", i))
	}
	return texts
}

func (f *fixture) wantTexts(want []string) {
	f.t.Helper()
	got := f.sink.all()
	if slices.Equal(got, want) {
		return
	}
	count := map[string]int{}
	for _, text := range got {
		count[text]++
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	f.t.Errorf("%d were delivered, want %d; from number %d on: %q", len(got), len(want), at, got[at:min(len(got), at+5)])
	for _, text := range want {
		if count[text] != 1 {
			f.t.Errorf("%q was delivered %d times", text, count[text])
		}
	}
	f.t.Log(strings.Join(f.sink.lines(), "\n"))
}

// stalling is a connection of which a test can say that nothing more is read for now, until it is closed.
type stalling struct {
	net.Conn
	mu     sync.Mutex
	wait   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (s *stalling) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.mu.Lock()
	wait := s.wait
	s.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-s.closed:
		}
	}
	return n, err
}

func (s *stalling) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

func (s *stalling) stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait = make(chan struct{})
}

func (s *stalling) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.wait)
	s.wait = nil
}

// stallable makes the connections that are made from now on, by their nicks.
func (f *fixture) stallable() (of func(nick string) *stalling) {
	var mu sync.Mutex
	made := map[string]*stalling{}
	f.network.dial = func(ctx context.Context, c *Config) (net.Conn, error) {
		conn, err := dial(ctx, c)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		made[c.Nick] = &stalling{Conn: conn, closed: make(chan struct{})}
		return made[c.Nick], nil
	}
	return func(nick string) *stalling {
		mu.Lock()
		defer mu.Unlock()
		return made[nick]
	}
}

func TestCrew_TwoSessionsInAChannel_DeliverEachLineOnce(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"plain": noCaps, "with IDs": allCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			f.login("alice")
			for _, text := range numbered(50) {
				f.witness.send("PRIVMSG #c :" + text)
			}
			f.sink.until(t, "line 49")
			f.witness.send("PART #c :enough")
			f.sink.until(t, "leave witness")
			f.wantTexts(numbered(50))
			if n := f.sink.count("leave witness"); n != 1 {
				t.Errorf("one leaving was delivered %d times", n)
			}
			if n := f.sink.count("join alice") + f.sink.count("members alice"); n != 0 {
				t.Errorf("our own session was taken for somebody: %v", f.sink.lines())
			}
		})
	}
}

// The one that receives loses its link again and again while lines come in a stream, by turns: not one is lost, doubled or out of order.
func TestCrew_ReceiverIsKilledWithinAStreamOfLines_TheOtherGoesOn(t *testing.T) {
	f := joined(t, noCaps)
	other := newWitness(t, f.server, "other")
	other.send("JOIN #c")
	f.login("alice")
	n, victims := 0, []string{"bridge", "alice"}
	for kill := range 20 {
		victim := victims[kill%2]
		for i := range 60 {
			f.witness.send(fmt.Sprintf("PRIVMSG #c :line %d", n))
			n++
			if i == 30 {
				f.server.Disconnect(victim)
			}
		}
		// What the server had not written yet when it cut a link nobody can have: the next cut waits until the one that stayed has it all.
		f.sink.until(t, fmt.Sprint(" line ", n-1))
		for deadline := time.Now().Add(20 * time.Second); f.sink.count("Joined #c") < kill+3; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s never came back", victim)
			}
		}
	}
	f.wantTexts(numbered(n))
}

// The receiver has not read what the other read long before, when its link goes; and the other way round.
func TestCrew_OneIsBehindWhenTheReceiverGoes_EachLineIsDeliveredOnce(t *testing.T) {
	for _, behind := range []string{"bob", "alice"} {
		t.Run(behind, func(t *testing.T) {
			f := joined(t, noCaps)
			conns := f.stallable()
			f.login("bob")
			f.server.Disconnect("bridge") // bob's login receives from now on, and the relay and alice's stand by
			f.witness.until("JOIN #c")
			f.login("alice")
			f.witness.send("PRIVMSG #c :line 0")
			f.sink.until(t, "line 0")
			conns(behind).stall()
			for _, text := range numbered(40)[1:] {
				f.witness.send("PRIVMSG #c :" + text)
			}
			f.witness.sync()
			if behind == "alice" {
				f.sink.until(t, "line 39")
				f.server.Disconnect("bridge")
			}
			time.Sleep(50 * time.Millisecond) // the others read: without that the test says less, and does not fail
			f.server.Disconnect("bob")
			conns(behind).goOn()
			f.witness.send("PRIVMSG #c :line 40")
			f.sink.until(t, "line 40")
			f.witness.send("PART #c")
			f.sink.until(t, "leave witness")
			f.wantTexts(numbered(41))
		})
	}
}

func TestCrew_RelayIsKicked_NobodyListensInItsPlace(t *testing.T) {
	f := joined(t, noCaps)
	f.login("alice")
	f.witness.send("PRIVMSG #c :before", "KICK #c bridge :out")
	f.sink.until(t, "kicked")
	f.login("bob")
	f.witness.send("PRIVMSG #c :unheard")
	f.witness.sync()
	f.join("#c")
	f.witness.until("JOIN #c")
	f.witness.send("PRIVMSG #c :after")
	f.sink.until(t, "after")
	f.wantTexts([]string{"before", "after"})
	f.server.Disconnect("bridge")
	f.witness.send("PRIVMSG #c :by the login")
	f.sink.until(t, "by the login")
	f.wantTexts([]string{"before", "after", "by the login"})
}

func TestCrew_WhatALoginSays_IsNotDelivered(t *testing.T) {
	f := joined(t, allCaps)
	alice := f.login("alice")
	msg := message("from Matrix")
	if _, err := alice.Send(f.ctx(), msg); err != nil {
		t.Fatal(err)
	}
	if line := f.witness.until("from Matrix"); !strings.Contains(line, ":alice!~mx") || !strings.HasSuffix(line, ":from Matrix") {
		t.Errorf("others see %q", line)
	}
	msg = message("waves")
	msg.Kind = bridge.KindEmote
	if _, err := alice.Send(f.ctx(), msg); err != nil {
		t.Fatal(err)
	}
	f.witness.until("\x01ACTION waves\x01")
	f.server.Do("alice", "NICK alicia")
	if _, err := alice.Send(f.ctx(), message("renamed")); err != nil {
		t.Fatal(err)
	}
	f.witness.send("PRIVMSG #c :end")
	f.sink.until(t, "end")
	f.wantTexts([]string{"end"})
	if n := f.sink.count("#c join") + f.sink.count("#c rename") + f.sink.count("members alic"); n != 0 {
		t.Errorf("our own session was taken for somebody: %v", f.sink.lines())
	}
}

// halfDead makes the connections that are made from now on ones that a test can have lost on our side, while the server does not notice.
func (f *fixture) halfDead() (of func(nick string) (lose func())) {
	var mu sync.Mutex
	lose := map[string]func(){}
	f.network.dial = func(ctx context.Context, c *Config) (net.Conn, error) {
		conn, err := dial(ctx, c)
		if err != nil {
			return nil, err
		}
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(there, conn); _ = there.Close() }()
		lost := make(chan struct{})
		go func() {
			_, _ = io.Copy(conn, there)
			select {
			case <-lost:
			default:
				_ = conn.Close()
			}
		}()
		f.t.Cleanup(func() { _ = conn.Close() })
		mu.Lock()
		defer mu.Unlock()
		if lose[c.Nick] == nil {
			lose[c.Nick] = sync.OnceFunc(func() { close(lost); _ = here.Close() })
		}
		return here, nil
	}
	return func(nick string) func() {
		mu.Lock()
		defer mu.Unlock()
		return lose[nick]
	}
}

func (f *fixture) joinedTimes(n int) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); f.sink.count("Joined #c") < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("somebody never came back")
		}
	}
}

// The server notices only when the next connection is there, under another nick: what it says then is of the old one.
func TestCrew_OldConnectionTimesOutLater_NothingIsDoubled(t *testing.T) {
	f := start(t, noCaps)
	lose := f.halfDead()
	f.witness.send("JOIN #c")
	f.witness.until(" 366 ")
	f.join("#c")
	f.login("alice")
	n := f.sink.count("Joined #c")
	lose("alice")()
	f.joinedTimes(n + 1)
	f.witness.until("alice_")
	f.witness.send("PRIVMSG #c :line 0")
	f.sink.until(t, "line 0")
	f.server.Disconnect("alice")
	f.witness.until("QUIT")
	for _, text := range numbered(31)[1:30] {
		f.witness.send("PRIVMSG #c :" + text)
	}
	f.sink.until(t, "line 29")
	time.Sleep(100 * time.Millisecond) // alice has read them, too: else the test says less
	f.server.Disconnect("bridge")
	f.witness.send("PRIVMSG #c :line 30")
	f.sink.until(t, "line 30")
	f.wantTexts(numbered(31))
}

// Only the receiver was shown a line, as in a netsplit; much later somebody says the same again, and the other receives.
func TestCrew_LineThatTheOtherNeverSaw_SwallowsNoLaterOne(t *testing.T) {
	a, b := &session{config: *testConfig("x:1"), login: bridge.RelayLogin}, &session{config: *testConfig("x:1"), login: "@b:x"}
	c := newCrew(nil)
	ok := sightOf(&bridge.Incoming{Channel: "#c", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Kind: bridge.KindText, Body: "ok"}})
	c.enters(a, "#c", "a")
	c.counts(a, "#c", nil)
	c.enters(b, "#c", "b")
	c.counts(b, "#c", []*session{a})
	c.sees(a, "#c", sightOfOurs(b, "b", true))
	c.sees(a, "#c", ok)
	w := c.channels["#c"]
	ahead := w.seat(b).ahead
	if len(ahead) != 1 {
		t.Fatalf("b is to see %v", ahead)
	}
	ahead[0].at = ahead[0].at.Add(-time.Hour)
	c.leaves(a, "#c", leaving{})
	w.goOn()
	w.ready = nil
	if c.sees(b, "#c", ok); len(w.ready) != 1 {
		t.Error("what was said an hour later is lost")
	}
}

func TestCrew_StoreTakesNothingWhenALoginCloses_TheClosingEnds(t *testing.T) {
	f := joined(t, noCaps)
	s, err := f.network.Open(t.Context(), &bridge.Login{ID: "@alice:x", User: "@alice:x", Data: []byte(`{"nick":"alice"}`)}, f.sink)
	if err != nil {
		t.Fatal(err)
	}
	f.joins(s)
	f.server.Disconnect("bridge")
	f.joinedTimes(3)
	f.witness.send("PRIVMSG #c :go")
	f.sink.until(t, "go")
	f.sink.failWith(func(*bridge.Incoming) error { return errors.New("the store is away") })
	const lines = outletSize + 50
	for _, text := range numbered(lines) {
		f.witness.send("PRIVMSG #c :" + text)
	}
	f.witness.sync()
	time.Sleep(300 * time.Millisecond) // the relay has read them, and holds them: else the test says less
	done := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx) // the error says that something was left
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("closing within a second has not ended after thirty")
	}
	f.sink.failWith(nil)
	<-done
	f.sink.until(t, fmt.Sprint(" line ", lines-1)) // what the login has given back the relay hands over, and waits for nothing else to be said
	f.wantTexts(append([]string{"go"}, numbered(lines)...))
}

func TestOutlet_ShareIsGivenUpWhileItWaits_ItsLinesAreHandedOverInOrderAndOnce(t *testing.T) {
	hold, s := make(chan struct{}), newSink()
	s.failWith(func(*bridge.Incoming) error { <-hold; return nil })
	out := newOutlet(s)
	c := newCrew(out)
	c.relay = &session{config: *testConfig("x:1"), login: bridge.RelayLogin, out: out, ctx: t.Context()}
	share := out.share(s)
	for i := range outletSize + 1 { // and one is under way
		in := said(fmt.Sprint("line ", i)).in
		out.deliver(&in)
	}
	w := c.watch("#c")
	for _, text := range numbered(outletSize + 4)[outletSize+1:] {
		w.ready = append(w.ready, said(text).in)
	}
	released := make(chan struct{})
	go func() {
		c.release(share, "#c")
		close(released)
	}()
	for share.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if left := share.abandon(); left != 1 {
		t.Errorf("%d are given up, want the one that waits", left)
	}
	<-released
	close(hold)
	s.until(t, fmt.Sprint(" line ", outletSize+3))
	c.relay.running.Wait()
	out.close()
	out.running.Wait()
	if got := s.all(); !slices.Equal(got, numbered(outletSize+4)) {
		t.Errorf("%d were delivered; the last are %q", len(got), got[max(0, len(got)-5):])
	}
}

func TestCrew_LoginTakesBackWhereItIsNot_DoesNotComeIn(t *testing.T) {
	f := joined(t, allCaps)
	alice := f.login("alice")
	if err := alice.(bridge.ChannelJoiner).LeaveChannel(f.ctx(), "#c"); err != nil {
		t.Fatal(err)
	}
	if err := alice.(bridge.Redacter).SendRedaction(f.ctx(), "#c", []string{"1"}, "", bridge.Sender{}); !bridge.IsPermanent(err) {
		t.Errorf("a redaction where it is not: %v", err)
	}
	if in := f.server.Members("#c"); slices.Contains(in, "alice") {
		t.Errorf("in the channel are %q", in)
	}
}

// After a restart, say: the relay is kept out, and a login is not.
func TestCrew_RelayMayNotComeIn_NobodyListensInItsPlace(t *testing.T) {
	for _, first := range []string{"relay", "login"} {
		t.Run(first, func(t *testing.T) {
			f := start(t, noCaps)
			f.witness.send("JOIN #c", "MODE #c +b bridge!*@*")
			f.witness.sync()
			if first == "login" {
				f.login("alice")
			}
			if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#c"); !bridge.IsPermanent(err) {
				t.Fatalf("the relay joined: %v", err)
			}
			if first == "relay" {
				f.login("alice")
			}
			f.witness.send("PRIVMSG #c :unheard")
			f.witness.sync()
			f.witness.send("MODE #c -b bridge!*@*")
			f.witness.sync()
			f.join("#c")
			f.witness.until("JOIN #c")
			f.witness.send("PRIVMSG #c :after")
			f.sink.until(t, "after")
			f.wantTexts([]string{"after"})
		})
	}
}
