package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

const bob = "@bob:hs.test"

// roomState is what the homeserver says of a room: events of a room of version 12 that creator made.
func roomState(creator string, more ...string) string {
	list := append([]string{
		`5`, `"nonsense"`,
		`{"type":"m.room.create","state_key":"","sender":"` + creator + `","event_id":"$c","content":{"room_version":"12"}}`,
		`{"type":"m.room.power_levels","state_key":"","sender":"` + creator + `","content":{"users":{"@irc_a:hs.test":60},"events":{"m.room.topic":70},"redact":55}}`,
		`{"type":"m.room.topic","state_key":"","sender":"` + creator + `","content":{"topic":"of no interest"}}`,
	}, more...)
	return "[" + strings.Join(list, ",") + "]"
}

func memberEvent(user, membership string) string {
	return fmt.Sprintf(`{"type":"m.room.member","state_key":%q,"sender":%q,"event_id":"$%s%s","room_id":%q,"origin_server_ts":1,"content":{"membership":%q}}`,
		user, user, user[1:4], membership, testRoom, membership)
}

// withState makes the homeserver answer with what state gives for the room's whole state.
func withState(hs *fakeHS, state func() string) {
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if !strings.HasSuffix(r.URL.Path, "/state") {
			return false
		}
		_, _ = w.Write([]byte(state()))
		return true
	}
}

func (f *fixture) joined() []string {
	f.t.Helper()
	users, err := f.as.Bot().Joined(context.Background(), testRoom)
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, user := range users {
		names = append(names, string(user))
	}
	slices.Sort(names)
	return names
}

func expectUsers(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q are in the room, want %q", what, got, want)
	}
}

const botUser = "@ircbot:hs.test"

func TestRoom_AfterTheBotsJoin_IsKnownWithOneRequest(t *testing.T) {
	hs := newFakeHS(t)
	withState(hs, func() string {
		return roomState("@carol:hs.test", memberEvent(bob, "join"), memberEvent("@dan:hs.test", "leave"), memberEvent("@eve:hs.test", "ban"),
			`{"type":"m.room.encryption","state_key":"","content":{"algorithm":"m.megolm.v1.aes-sha2"}}`)
	})
	f := newFixture(t, hs)
	ctx := t.Context()
	if err := f.as.Bot().EnsureJoined(ctx, testRoom); err != nil {
		t.Fatal(err)
	}
	f.crash()
	if _, err := f.send(ghostA, "t"); err != nil {
		t.Fatal(err)
	}
	if encrypted, known, err := f.store.Encrypted(ctx, testRoom); !encrypted || !known || err != nil {
		t.Errorf("encrypted %v, known %v: %v", encrypted, known, err)
	}
	expectUsers(t, "after the join", f.joined(), botUser, bob, string(ghostA))
	for user, want := range map[id.UserID]struct{ send, topic, redactBobs, redactOwn bool }{
		ghostA: {true, false, true, true}, botUser: {true, false, false, true}, "@carol:hs.test": {true, true, true, true},
	} {
		i := f.as.intent(user)
		i.known.Store(&store.Ghost{UserID: string(user), Registered: true})
		for what, c := range map[string]struct {
			ask  func() (bool, error)
			want bool
		}{
			"send":         {func() (bool, error) { return i.MaySend(ctx, testRoom, event.EventMessage) }, want.send},
			"set topic":    {func() (bool, error) { return i.MaySend(ctx, testRoom, event.StateTopic) }, want.topic},
			"redact bob's": {func() (bool, error) { return i.MayRedact(ctx, testRoom, bob) }, want.redactBobs},
			"redact own":   {func() (bool, error) { return i.MayRedact(ctx, testRoom, user) }, want.redactOwn},
		} {
			if may, err := c.ask(); err != nil || may != c.want {
				t.Errorf("%s may %s: %v, want %v (%v)", user, what, may, c.want, err)
			}
		}
	}
	if n := hs.count("GET /rooms/"); n != 1 {
		t.Errorf("%d requests about the room, want 1", n)
	}
}

func TestRoom_IsKeptCurrentFromEvents(t *testing.T) {
	hs := newFakeHS(t)
	withState(hs, func() string { return roomState(bob, memberEvent(bob, "join")) })
	f := newFixture(t, hs)
	if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
		t.Fatal(err)
	}
	f.mustPut("1", events(memberEvent("@dan:hs.test", "join"), memberEvent(bob, "leave"),
		`{"type":"m.room.power_levels","state_key":"","event_id":"$p","room_id":"`+testRoom+`","sender":"@dan:hs.test","origin_server_ts":1,"content":{"events_default":99}}`,
		`{"type":"m.room.power_levels","state_key":"not empty","event_id":"$q","room_id":"`+testRoom+`","sender":"@dan:hs.test","origin_server_ts":1,"content":{"events_default":0}}`))
	f.idle()
	expectUsers(t, "after the events", f.joined(), botUser, "@dan:hs.test")
	if may, err := f.as.Bot().MaySend(t.Context(), testRoom, event.EventMessage); err != nil || may {
		t.Errorf("with power 0 of 99 the bot may send: %v (%v)", may, err)
	}
	if n := hs.count("GET /rooms/"); n != 1 {
		t.Errorf("%d requests about the room", n)
	}
}

// An event that comes in while the room is being read is newer than the answer.
func TestRoom_EventsWhileItIsRead_Hold(t *testing.T) {
	hs := newFakeHS(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	var f *fixture
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if !strings.HasSuffix(r.URL.Path, "/state") {
			return false
		}
		close(asked)
		<-answer
		_, _ = w.Write([]byte(roomState(bob, memberEvent(bob, "join"))))
		return true
	}
	f = newFixture(t, hs)
	var join sync.WaitGroup
	join.Go(func() {
		if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
			t.Error(err)
		}
	})
	<-asked
	f.mustPut("1", events(memberEvent(bob, "ban"),
		`{"type":"m.room.power_levels","state_key":"","event_id":"$p","room_id":"`+testRoom+`","sender":"@dan:hs.test","origin_server_ts":1,"content":{"users":{"`+botUser+`":42}}}`))
	f.idle()
	close(answer)
	join.Wait()
	expectUsers(t, "after both", f.joined(), botUser)
	levels, err := f.as.Bot().PowerLevels(t.Context(), testRoom)
	if err != nil || levels.GetUserLevel(botUser) != 42 {
		t.Errorf("%+v %v", levels, err)
	}
}

func TestRoom_LeftAndJoinedAgain_IsReadAgain(t *testing.T) {
	for name, leave := range map[string]func(f *fixture){
		"left": func(f *fixture) {
			if err := f.as.Bot().Leave(context.Background(), testRoom, ""); err != nil {
				f.t.Error(err)
			}
		},
		"kicked": func(f *fixture) {
			f.mustPut("1", events(`{"type":"m.room.member","state_key":"`+botUser+`","sender":"@bob:hs.test","event_id":"$k","room_id":"`+testRoom+`","origin_server_ts":1,"content":{"membership":"leave"}}`))
			f.idle()
		},
	} {
		t.Run(name, func(t *testing.T) {
			hs := newFakeHS(t)
			who := bob
			withState(hs, func() string { return roomState(bob, memberEvent(who, "join")) })
			f := newFixture(t, hs)
			if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
				t.Fatal(err)
			}
			leave(f)
			if known, err := f.store.KnowsRoom(t.Context(), testRoom); known || err != nil {
				t.Errorf("a room without events is known: %v", err)
			}
			hs.with(func() { who = "@dan:hs.test" })
			if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
				t.Fatal(err)
			}
			expectUsers(t, "at the second time", f.joined(), botUser, "@dan:hs.test")
			if n := hs.count("GET /rooms/"); n != 2 {
				t.Errorf("%d requests about the room, want 2", n)
			}
		})
	}
}

func TestRoom_GhostsComeAndGo_WithoutReadingItAgain(t *testing.T) {
	hs := newFakeHS(t)
	withState(hs, func() string { return roomState(bob) })
	f := newFixture(t, hs)
	if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			ghost := f.as.Ghost(id.UserID(fmt.Sprintf("@irc_%d:hs.test", n)))
			if err := errors.Join(ghost.EnsureJoined(t.Context(), testRoom), ghost.Leave(t.Context(), testRoom, ""), ghost.EnsureJoined(t.Context(), testRoom)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := hs.count("GET /rooms/"); n != 1 {
		t.Errorf("%d requests about the room, want 1", n)
	}
	if n := len(f.joined()); n != 21 {
		t.Errorf("%d are in the room", n)
	}
}

// What is cut off, or no list, is not the whole state: the room is not known, and the join is not done.
func TestRoom_AnswerThatIsNotWhole_IsAskedForAgain(t *testing.T) {
	for _, bad := range []string{`{}`, `[{"type":"m.room.member","state_key":"@x:hs.test","content":{"membership":"join"}},`, ``, `[{"type":`, `[]x`} {
		hs := newFakeHS(t)
		answer := bad
		withState(hs, func() string { return answer })
		f := newFixture(t, hs)
		err := f.as.Bot().EnsureJoined(t.Context(), testRoom)
		if known, _ := f.store.KnowsRoom(t.Context(), testRoom); (err == nil || known) && bad != `[]x` {
			t.Errorf("%q: known %v, %v", bad, known, err)
		}
		hs.with(func() { answer = roomState(bob, memberEvent(bob, "join")) })
		if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
			t.Errorf("%q: %v", bad, err)
		}
		if bad != `[]x` {
			expectUsers(t, bad, f.joined(), botUser, bob)
		}
	}
}

func TestRoom_OfTenThousandMembers_IsReadInParts(t *testing.T) {
	hs := newFakeHS(t)
	withState(hs, func() string {
		var list []string
		for n := range 10_000 {
			list = append(list, memberEvent(fmt.Sprintf("@u%d:hs.test", n), "join"))
		}
		return roomState(bob, list...)
	})
	f := newFixture(t, hs)
	if err := f.as.Bot().EnsureJoined(t.Context(), testRoom); err != nil {
		t.Fatal(err)
	}
	if n := len(f.joined()); n != 10_001 {
		t.Errorf("%d are in the room", n)
	}
	if n := hs.count("GET /rooms/"); n != 1 {
		t.Errorf("%d requests", n)
	}
}
