package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

var msgidTag = regexp.MustCompile(`msgid=([^ ;]+)`)

// tagged is a bridge whose people on IRC see IDs, redactions and reactions; alice has a login, which ended.
func tagged(t *testing.T, opts ircd.Options) *loggedIn {
	l := newLoggedIn(t, opts)
	l.commands("!irc logout", "has ended")
	l.types("CAP REQ :message-tags draft/message-redaction echo-message")
	return l
}

func (l *loggedIn) reads1(text string) (msgid string) {
	l.Helper()
	return msgidTag.FindStringSubmatch(l.reads(text))[1]
}

func (l *loggedIn) event(match func(bridgetest.Event) bool) bridgetest.Event {
	l.Helper()
	ev, err := l.alice.WaitFor(l.ctx, l.room, match)
	l.ok(err)
	return ev
}

// reactions are those that are there, as "who key on body".
func (l *loggedIn) reactions() (list []string) {
	l.Helper()
	events, err := l.alice.Timeline(l.ctx, l.room)
	l.ok(err)
	bodies := map[id.EventID]string{}
	for _, e := range events {
		bodies[e.ID] = e.Body()
	}
	for _, e := range events {
		if relates, ok := e.Content["m.relates_to"].(map[string]any); ok && e.Type == "m.reaction" {
			list = append(list, fmt.Sprintf("%s %v on %s", e.Sender.Localpart(), relates["key"], bodies[id.EventID(fmt.Sprint(relates["event_id"]))]))
		}
	}
	return list
}

func (l *loggedIn) wantReactions(want ...string) {
	l.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got := l.reactions()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			l.Fatalf("the reactions are %q, want %q", got, want)
		}
	}
}

func TestTakeBack_RedactionsFromIRC_TakeTheEventBack(t *testing.T) {
	l := tagged(t, ircd.Options{})
	l.types("PRIVMSG #c :bob's own")
	bobs := l.reads1("bob's own")
	ev := l.event(func(e bridgetest.Event) bool { return e.Body() == "bob's own" })
	l.types("REDACT #c " + bobs + " :it was wrong")
	l.sees(func(e bridgetest.Event) bool {
		return e.Type == "m.room.redaction" && (e.Redacts == ev.ID || e.Content["redacts"] == string(ev.ID)) && e.Sender == ev.Sender
	})
}

func TestTakeBack_RedactionsFromMatrix_AreSent(t *testing.T) {
	l := tagged(t, ircd.Options{})
	ev, err := l.alice.SendText(l.ctx, l.room, "one\ntwo")
	l.ok(err)
	one, two := l.reads1("> one"), l.reads1("> two")
	l.event(func(e bridgetest.Event) bool { return e.ID == ev })
	_, err = l.alice.Redact(l.ctx, l.room, ev, "never mind")
	l.ok(err)
	for _, msgid := range []string{one, two} {
		if line := l.reads(" REDACT "); !strings.HasSuffix(line, "REDACT #c "+msgid+" :never mind") {
			t.Errorf("bob read %q, want the redaction of %s", line, msgid)
		}
	}
	// What somebody on IRC wrote the bot may not take back, and who tried that is told.
	l.types("PRIVMSG #c :bob's own")
	l.reads("bob's own")
	bobs := l.event(func(e bridgetest.Event) bool { return e.Body() == "bob's own" })
	_, err = l.alice.Redact(l.ctx, l.room, bobs.ID, "")
	l.ok(err)
	l.sees(func(e bridgetest.Event) bool { return strings.Contains(e.Body(), "did not take the message back") })
}

func TestTakeBack_Reactions_CrossBothWaysAndAreTakenBack(t *testing.T) {
	l := tagged(t, ircd.Options{})
	carol := l.hs.User("carol")
	l.ok(l.alice.Invite(l.ctx, l.room, carol.ID()))
	_, err := carol.Join(l.ctx, string(l.room))
	l.ok(err)
	l.types("PRIVMSG #c :what do you think?")
	msgid := l.reads1("what do you think?")
	ev := l.event(func(e bridgetest.Event) bool { return e.Body() == "what do you think?" })
	bob := l.b.GhostID(bridge.RemoteUser{ID: "bob"}).Localpart()

	for range 2 { // the second time is as good as the first
		l.types("@+draft/react=👍;+draft/reply=" + msgid + " TAGMSG #c")
		l.wantReactions(bob + " 👍 on what do you think?")
		l.types("@+draft/unreact=👍;+draft/reply=" + msgid + " TAGMSG #c")
		l.wantReactions()
	}
	l.types("PRIVMSG #c :so far") // the lines that bob has sent himself are behind him
	l.reads("so far")

	react := func(u *bridgetest.User) id.EventID {
		ev, err := u.Send(l.ctx, l.room, "m.reaction", map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": ev.ID, "key": "🎉"}})
		l.ok(err)
		return ev
	}
	first := react(l.alice)
	if line := l.reads("TAGMSG"); !strings.Contains(line, "+draft/react=🎉") || !strings.Contains(line, "+draft/reply="+msgid) {
		t.Errorf("bob read %q", line)
	}
	second := react(carol)
	_, err = l.alice.Redact(l.ctx, l.room, first, "")
	l.ok(err)
	l.says("one is left")
	for l.lines.Scan() {
		line := l.lines.Text()
		if strings.Contains(line, "TAGMSG") && strings.Contains(line, "react") {
			t.Errorf("bob read %q while carol's reaction was there", line)
		}
		if strings.Contains(line, "one is left") {
			break
		}
	}
	_, err = carol.Redact(l.ctx, l.room, second, "")
	l.ok(err)
	if line := l.reads("TAGMSG"); !strings.Contains(line, "+draft/unreact=🎉") {
		t.Errorf("bob read %q", line)
	}
}

// What the bridge calls its own session is a nick that anybody can have.
func TestTakeBack_SomebodyHasTheNickRelay_ReactionsOfMatrixStay(t *testing.T) {
	l := tagged(t, ircd.Options{})
	_, err := l.alice.SendState(l.ctx, l.room, "m.room.power_levels", "", map[string]any{"users": map[string]any{string(l.alice.ID()): 100, string(l.b.BotID()): 100}})
	l.ok(err)
	l.types("PRIVMSG #c :what do you think?")
	msgid := l.reads1("what do you think?")
	ev := l.event(func(e bridgetest.Event) bool { return e.Body() == "what do you think?" })
	_, err = l.alice.Send(l.ctx, l.room, "m.reaction", map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": ev.ID, "key": "🎉"}})
	l.ok(err)
	l.reads("TAGMSG")
	l.says("it is stored")
	l.reads("it is stored")
	l.types("NICK relay", "@+draft/unreact=🎉;+draft/reply="+msgid+" TAGMSG #c", "PRIVMSG #c :end")
	l.sees(func(e bridgetest.Event) bool { return e.Body() == "end" })
	l.wantReactions("alice 🎉 on what do you think?")
}

func TestTakeBack_OfWhoHasLeft_DoesNotBringTheLoginBack(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"plain": {Capabilities: []string{}}, "with redactions": {}} {
		t.Run(name, func(t *testing.T) {
			l := newLoggedIn(t, opts)
			carol := l.hs.User("carol")
			l.ok(l.alice.Invite(l.ctx, l.room, carol.ID()))
			_, err := carol.Join(l.ctx, string(l.room))
			l.ok(err)
			_, err = l.alice.SendState(l.ctx, l.room, "m.room.power_levels", "", map[string]any{"users": map[string]any{string(l.alice.ID()): 100, string(carol.ID()): 100}})
			l.ok(err)
			ev, err := l.alice.SendText(l.ctx, l.room, "mine")
			l.ok(err)
			l.reads("mine")
			l.ok(l.alice.Leave(l.ctx, l.room, ""))
			l.until("alice is out", func() bool { return !slices.Contains(l.server.Members("#c"), "alice") })
			_, err = carol.Redact(l.ctx, l.room, ev, "")
			l.ok(err)
			_, err = carol.SendText(l.ctx, l.room, "afterwards")
			l.ok(err)
			l.reads("afterwards")
			if slices.Contains(l.server.Members("#c"), "alice") {
				t.Error("alice's login is in the channel, and she is not in the room")
			}
		})
	}
}

// A network with none of that: nothing crosses, nobody is told, and what is said goes on.
func TestTakeBack_NetworkWithoutAny_StaysQuiet(t *testing.T) {
	l := newLoggedIn(t, ircd.Options{Capabilities: []string{}})
	ev, err := l.alice.SendText(l.ctx, l.room, "taken back")
	l.ok(err)
	l.reads("taken back")
	_, err = l.alice.Send(l.ctx, l.room, "m.reaction", map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": ev, "key": "🎉"}})
	l.ok(err)
	_, err = l.alice.Redact(l.ctx, l.room, ev, "")
	l.ok(err)
	l.says("afterwards")
	l.reads("afterwards")
	for _, nick := range []string{"alice", "trestle"} {
		for _, line := range l.server.Lines(nick) {
			if strings.Contains(line, "REDACT") || strings.Contains(line, "TAGMSG") {
				t.Errorf("%s sent %q", nick, line)
			}
		}
	}
}
