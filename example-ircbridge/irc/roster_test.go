package irc

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

// namesake has somebody else take the nick that the relay asks for. The relay is there as "other".
func namesake(t *testing.T) (f *fixture, person *witness) {
	t.Helper()
	f = joined(t, withHistory)
	f.server.Do("bridge", "NICK other")
	f.witness.until("NICK other")
	person = newWitness(t, f.server, "bridge")
	person.send("JOIN #c", "PRIVMSG #c :known")
	f.sink.until(t, "known")
	return f, person
}

func TestRoster_SomebodyHasTheNickThatWasAskedFor_WhatTheySaidMeanwhileIsFetched(t *testing.T) {
	f, person := namesake(t)
	f.sink.taken(f.sink.newest().Time)
	f.mustSend(message("ours"))
	f.server.Disconnect("other")
	person.send("PRIVMSG #c :missed")
	person.until("bridge_!") // comes back
	person.send("PRIVMSG #c :live")
	f.sink.until(t, "live")
	if got := f.sink.texts(); len(got) != 3 || got[1] != "missed" {
		t.Errorf("delivered were %q", got)
	}
}

func TestRoster_SomebodyHasTheNickThatWasAskedFor_TheirWordsAreNotTakenForAMessageInDoubt(t *testing.T) {
	f, person := namesake(t)
	f.mustSend(message("ours")) // shows that the history is whole
	person.send("PRIVMSG #c :<Alice> perhaps")
	f.sink.until(t, "perhaps")
	f.server.Hold("other", true)
	result := make(chan error, 1)
	go func() {
		_, err := f.session.Send(f.ctx(), message("perhaps"))
		result <- err
	}()
	for !slices.ContainsFunc(f.server.Lines("other"), func(line string) bool { return strings.Contains(line, "perhaps") }) {
		time.Sleep(time.Millisecond)
	}
	f.server.Disconnect("other")
	if err := <-result; !bridge.IsInDoubt(err) {
		t.Fatalf("%v", err)
	}
	if _, there, err := f.settle("perhaps"); err != nil || there {
		t.Errorf("what somebody else said was taken for ours: %v, %v", there, err)
	}
}

// The relay reads late what ann has said, when her nick is a login's already.
func TestRoster_LoginGetsSomebodysNick_WhatTheySaidBeforeIsReadLateAndDelivered(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"plain": noCaps, "with IDs": allCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			conns := f.stallable()
			s := f.session.(*session)
			s.mu.Lock()
			s.dial = f.network.dial
			s.mu.Unlock()
			f.cut()
			f.joinedTimes(2)
			ann := newWitness(t, f.server, "ann")
			ann.send("JOIN #c", "PRIVMSG #c :first")
			f.sink.until(t, "first")
			conns("bridge").stall()
			ann.send("PRIVMSG #c :last", "QUIT :gone")
			f.witness.until("Quit: gone")
			alice := f.login("ann")
			if in := f.server.Members("#c"); in[0] != "ann" {
				t.Fatalf("in the channel are %q", in)
			}
			if _, err := alice.Send(f.ctx(), message("of Matrix")); err != nil {
				t.Fatal(err)
			}
			conns("bridge").goOn()
			f.witness.send("PRIVMSG #c :end")
			f.sink.until(t, "end")
			f.wantTexts([]string{"first", "last", "end"})
			if n := f.sink.count("leave ann"); n != 1 {
				t.Errorf("ann left %d times", n)
			}
		})
	}
}

// A login's nick is taken from it, and given to who owns it: both speak under it within a moment.
func TestRoster_NickIsTakenFromALoginAndGivenBack_EachLineIsWhoseItIs(t *testing.T) {
	f := joined(t, allCaps)
	login := f.login("ann")
	send := func(text string) {
		if _, err := login.Send(f.ctx(), message(text)); err != nil {
			t.Fatal(err)
		}
	}
	send("of Matrix 1")
	f.server.Do("ann", "NICK Guest1")
	f.witness.until("NICK Guest1")
	send("of Matrix 2")
	ann := newWitness(t, f.server, "ann")
	ann.send("JOIN #c", "PRIVMSG #c :by herself")
	f.sink.until(t, "by herself")
	send("of Matrix 3")
	ann.send("PRIVMSG #c :again", "NICK gone", "PRIVMSG #c :under another name")
	f.sink.until(t, "under another name")
	f.server.Do("Guest1", "NICK ann")
	f.witness.until(" NICK ann")
	send("of Matrix 4")
	f.witness.send("PRIVMSG #c :end")
	f.sink.until(t, "end")
	f.wantTexts([]string{"by herself", "again", "under another name", "end"})
}

// In another process: nobody is connected yet, or under another nick.
func TestRoster_LinesOfThePast_AreOursByTheUserNameThatTheServerShows(t *testing.T) {
	c := newCrew(nil)
	relay := &session{config: *testConfig("x:1"), login: bridge.RelayLogin, crew: c}
	c.relay, c.idents["mxabcdefg"] = relay, true
	login := &session{config: *testConfig("x:1"), login: "@ann:x", crew: c}
	login.config.Nick, login.config.Username = "ann", "mxabcdefg"
	l := &link{session: login, support: newISupport(), nick: "ann_", user: "~mxabcdefg", host: "h"}
	for prefix, want := range map[string]bool{
		"ann!~ann@her.host":        false, // the real one
		"ann_!~ann@her.host":       false,
		"ann!~mxabcdefg@h":         true,
		"ann_!mxabcdefg@h2":        true,
		"Guest7!~mxabcdefg@h":      true,
		"bridge!~trestle@anywhere": true, // the relay of an earlier process
		"bridge_!~trestle@h":       true,
		"bridge!~somebody@h":       false,
		"trestle!~trestle@h":       false,
	} {
		m := ircmsg.MakeMessage(nil, prefix, "PRIVMSG", "#c", "x")
		if got := l.isOurs(&m) || l.wasOurs(&m); got != want {
			t.Errorf("%s is ours: %v", prefix, got)
		}
	}
	m := ircmsg.MakeMessage(nil, "ann!~ann@her.host", "PRIVMSG", "#c", "x")
	if l.isOurs(&m) {
		t.Error("ann's words settle what is in doubt")
	}
	l = &link{session: relay, support: newISupport(), nick: "bridge", user: "~trestle", host: "h"}
	if m = ircmsg.MakeMessage(nil, "ann_!~mxabcdefg@h", "PRIVMSG", "#c", "x"); !l.wasOurs(&m) {
		t.Error("a login that had another nick than it asked for is taken for somebody")
	}
}

func TestRoster_HostChanges_TheLoginIsKnownUnderBoth(t *testing.T) {
	c := newCrew(nil)
	s := &session{config: *testConfig("x:1"), login: "@ann:x", crew: c}
	l := &link{session: s, support: newISupport(), nick: "ann", user: "~mx", host: "old", ready: true}
	l.looks()
	for _, raw := range []string{":irc.test 396 ann cloaked :is now your displayed host", ":ann!~mx@cloaked CHGHOST mx new"} {
		m, err := ircmsg.ParseLine(raw)
		if err != nil {
			t.Fatal(err)
		}
		handlers[m.Command].run(l, &m)
	}
	c.lost(s)
	for _, seen := range []look{{"~mx", "old"}, {"~mx", "cloaked"}, {"mx", "new"}} {
		if c.whose("ann", seen.user, seen.host) != s {
			t.Errorf("%v is not known any more", seen)
		}
	}
	if c.whose("ann", "~ann", "her.host") != nil || c.whose("ann", "~mx", "elsewhere") != nil {
		t.Error("somebody else is taken for the login")
	}
}
