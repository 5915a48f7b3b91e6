package appservice

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

func userID(s string) id.UserID { return id.UserID(s) }

func typing(users ...string) string {
	return fmt.Sprintf(`{"type":"m.typing","room_id":%q,"content":{"user_ids":["%s"]}}`, testRoom, strings.Join(users, `","`))
}

func describe(ev *Ephemeral) string {
	switch {
	case ev.Typing != nil:
		return fmt.Sprintf("typing %s +%v -%v", ev.RoomID, ev.Typing.Started, ev.Typing.Stopped)
	case ev.Presence != nil:
		return fmt.Sprintf("presence %s %s %q", ev.Presence.UserID, ev.Presence.Presence, ev.Presence.StatusMessage)
	}
	var list []string
	for _, r := range ev.Receipts {
		list = append(list, fmt.Sprintf("%s %s %q %d", r.UserID, r.EventID, r.ThreadID, r.At.UnixMilli()))
	}
	return "receipts " + strings.Join(list, ", ")
}

// runEphemerals runs a bubble with the two goroutines of ephemeral events.
func runEphemerals(t *testing.T, test func(e *ephemerals, got func() string)) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		own := func(u id.UserID) bool { return strings.HasPrefix(string(u), "@irc") }
		e := newEphemerals(func(_ context.Context, ev *Ephemeral) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, describe(ev))
		}, own, zerolog.Nop(), func(string) {})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		go func() { e.read(ctx); done <- struct{}{} }()
		go func() { e.call(ctx); done <- struct{}{} }()
		test(e, func() string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			defer func() { got = nil }()
			slices.Sort(got)
			return strings.Join(got, "; ")
		})
		cancel()
		<-done
		<-done
	})
}

func offer(e *ephemerals, list ...string) {
	var raw [][]byte
	for _, s := range list {
		raw = append(raw, []byte(s))
	}
	e.offer(raw)
}

func TestA12_TypingLists_BecomeStartsAndStops(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		for _, c := range []struct{ list, want string }{
			{typing("@a:x"), "typing " + testRoom + " +[@a:x] -[]"},
			{typing("@a:x", "@b:x"), "typing " + testRoom + " +[@b:x] -[]"},
			{typing("@b:x", "@a:x"), ""},
			{`{"type":"m.typing","room_id":"` + testRoom + `","content":{"user_ids":[]}}`, "typing " + testRoom + " +[] -[@a:x @b:x]"},
			{`{"type":"m.typing","room_id":"` + testRoom + `","content":{"user_ids":[]}}`, ""},
		} {
			offer(e, c.list)
			if g := got(); g != c.want {
				t.Errorf("%s gave %q, want %q", c.list, g, c.want)
			}
		}
	})
}

func TestA12_TypingThatNobodyEnds_Expires(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		offer(e, typing("@a:x"))
		got()
		time.Sleep(typingLifetime - time.Second)
		offer(e, typing("@a:x")) // still typing
		time.Sleep(typingLifetime - time.Second)
		if g := got(); g != "" {
			t.Errorf("got %q too early", g)
		}
		time.Sleep(2 * time.Second)
		if g := got(); g != "typing "+testRoom+" +[] -[@a:x]" {
			t.Errorf("got %q", g)
		}
	})
}

func TestA13_OwnUsers_AreFilteredBeforeTheHandler(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		offer(e, typing("@irc_a:hs.test"), `{"type":"m.presence","sender":"@irc_a:hs.test","content":{"presence":"online"}}`,
			`{"type":"m.receipt","room_id":"!r","content":{"$1":{"m.read":{"@irc_a:hs.test":{"ts":1}}}}}`)
		if g := got(); g != "" {
			t.Errorf("got %q", g)
		}
	})
}

func TestA14_A16_Receipts_OfSeveralEventsUsersAndThreads(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		offer(e, `{"type":"m.receipt","room_id":"!r","content":{"$1":{"m.read":{"@a:x":{"ts":1},"@b:x":{"ts":2,"thread_id":"main"}}},"$2":{"m.read":{"@a:x":{"ts":3,"thread_id":"$t"}},"m.unknown":{"@a:x":{"ts":4}}}}}`)
		if g, want := got(), `receipts @a:x $1 "" 1; receipts @a:x $2 "$t" 3; receipts @b:x $1 "main" 2`; g != want {
			t.Errorf("got %q, want %q", g, want)
		}
	})
}

func TestA15_PrivateReceipts_AreNeverHandedOver(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		offer(e, `{"type":"m.receipt","room_id":"!r","content":{"$1":{"m.read.private":{"@a:x":{"ts":1}}}}}`)
		if g := got(); g != "" {
			t.Errorf("got %q", g)
		}
	})
}

func TestA8_A9_A10_UnknownTypesAndMissingRooms_AreDroppedAlone(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		offer(e, `{"type":"m.mine","room_id":"!r"}`, `5`, `null`, `{"type":5}`, `{"type":"m.typing","content":{"user_ids":["@a:x"]}}`,
			`{"type":"m.typing","room_id":"#r","content":{"user_ids":["@a:x"]}}`, `{"type":"m.typing","room_id":"!r","content":{"user_ids":5}}`,
			`{"type":"m.receipt","room_id":"!r","content":[]}`, `{"type":"m.presence","content":{}}`,
			`{"type":"m.presence","sender":"@a:x","content":{"presence":"online","status_msg":"hi","last_active_ago":1.5}}`)
		if g, want := got(), `presence @a:x online "hi"`; g != want {
			t.Errorf("got %q, want %q", g, want)
		}
	})
}

func TestA20_ManyEphemerals_AreBoundedAndCoalesced(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		var list []string
		for i := range 3 * ephemeralQueue {
			list = append(list, fmt.Sprintf(`{"type":"m.presence","sender":"@u%d:x","content":{"presence":"online"}}`, i))
		}
		offer(e, list...)
		e.mu.Lock()
		if len(e.raw) > ephemeralRaw {
			t.Errorf("%d wait to be read", len(e.raw))
		}
		e.mu.Unlock()
		got()
		for range 50 {
			offer(e, typing("@a:x"), typing("@b:x"))
		}
		if g := got(); strings.Count(g, "typing") > 100 || !strings.Contains(g, "+[@b:x]") {
			t.Errorf("got %q", g)
		}
	})
}

func TestA20_LargeEphemerals_AreBoundedInBytesToo(t *testing.T) {
	e := newEphemerals(nil, func(id.UserID) bool { return false }, zerolog.Nop(), func(string) {})
	large := make([]byte, 1<<20)
	for range 3 {
		e.offer(slices.Repeat([][]byte{large}, 10))
	}
	e.offer([][]byte{[]byte("{}"), make([]byte, ephemeralBytes+1), []byte("[]")})
	if n, most := len(e.raw), ephemeralBytes/len(large); n != most || string(e.raw[n-1]) != "[]" || len(e.raw[0]) != len(large) {
		t.Errorf("%d wait beside one that was too large", n)
	}
	e.offer(slices.Repeat([][]byte{large}, 20))
	if n := len(e.raw); n != ephemeralBytes/len(large) {
		t.Errorf("%d of 1 MiB wait to be read", n)
	}
}

func TestA20_LongTextOfStrangers_IsNotKept(t *testing.T) {
	runEphemerals(t, func(e *ephemerals, got func() string) {
		long := strings.Repeat("x", maxID)
		receipt := func(event, user, thread string) string {
			return fmt.Sprintf(`{"type":"m.receipt","room_id":%q,"content":{%q:{"m.read":{%q:{"ts":1,"thread_id":%q}}}}}`, testRoom, event, user, thread)
		}
		offer(e, receipt("$"+long, "@a:x", ""), receipt("$1", "@"+long, ""), receipt("$1", "@a:x", "$"+long), typing("@a:x", "@"+long),
			strings.Replace(present("@a:x"), `"online"`, `"online","status_msg":"`+strings.Repeat("é", maxStatus)+`"`, 1), present("@"+long))
		want := fmt.Sprintf("presence @a:x online %q; typing %s +[@a:x] -[]", strings.Repeat("é", maxStatus/2), testRoom)
		if g := got(); g != want {
			t.Errorf("got %q", g)
		}
	})
}

func TestEphemeral_PanickingHandler_GoesOn(t *testing.T) {
	f := newFixture(t, nil)
	first := true
	f.rec.ephemeral = func(*Ephemeral) {
		if first {
			first = false
			panic("boom")
		}
	}
	f.mustPut("1", `{"ephemeral":[{"type":"m.presence","sender":"@a:x","content":{}},{"type":"m.presence","sender":"@b:x","content":{}}]}`)
	f.rec.waitFor(func() bool { return len(f.rec.ephemerals) == 1 })
}

func present(user string) string {
	return fmt.Sprintf(`{"type":"m.presence","sender":%q,"content":{"presence":"online"}}`, user)
}

// lastPresence is whose presence was handed over last.
func lastPresence(list []*Ephemeral) (user id.UserID) {
	for _, ev := range list {
		if ev.Presence != nil {
			user = ev.Presence.UserID
		}
	}
	return user
}
