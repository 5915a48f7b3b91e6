package appservice

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
)

func TestJoin_Forbidden_IsInvitedByTheBot(t *testing.T) {
	hs := newFakeHS(t)
	hs.private = true
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t"); err != nil {
		t.Fatal(err)
	}
	if r := hs.find("POST /rooms/" + testRoom + "/invite"); !strings.Contains(r, "user=@ircbot:hs.test") || !strings.Contains(r, string(ghostA)) {
		t.Errorf("the invitation was %q", r)
	}
}

func TestJoin_AfterAKick_JoinsAgain(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	f.mustPut("1", events(`{"type":"m.room.member","event_id":"$k","room_id":"`+testRoom+`","sender":"@op:hs.test","state_key":"`+string(ghostA)+`","content":{"membership":"leave"}}`))
	f.idle()
	if _, err := f.send(ghostA, "t2"); err != nil {
		t.Fatal(err)
	}
	if n := hs.count("POST /join/"); n != 2 {
		t.Errorf("%d joins, want 2", n)
	}
}

func TestSend_RefusedInARoomThatTheGhostWasTakenOutOf_JoinsAndSendsOnceMore(t *testing.T) {
	hs := newFakeHS(t)
	in, asked := false, 0
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		switch {
		case strings.Contains(r.URL.Path, "/join/"):
			in = true
		case strings.Contains(r.URL.Path, "/send/") && !in:
			answerError(w, 403, "M_FORBIDDEN", "User not in room")
			return true
		case strings.HasSuffix(r.URL.Path, "/whoami"): // only once: then this homeserver does not know the question
			asked++
			if asked > 1 {
				answerError(w, 404, codeUnrecognized, "")
				return true
			}
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	in = false
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); err != nil {
		t.Error(err)
	}
	if n := hs.count("PUT /rooms/" + testRoom + "/send/m.room.message/t2 "); n != 2 {
		t.Errorf("t2 was sent %d times, want 2", n)
	}
}

func TestSend_RefusedAndTheRoomCannotBeJoinedNow_IsNoRefusal(t *testing.T) {
	hs := newFakeHS(t)
	broken := false
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		switch {
		case broken && strings.Contains(r.URL.Path, "/join/"):
			answerError(w, 502, "M_UNKNOWN", "restarting")
			return true
		case broken && strings.Contains(r.URL.Path, "/send/"):
			answerError(w, 403, "M_FORBIDDEN", "User not in room")
			return true
		}
		return false
	}
	f := newFixture(t, hs)
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	hs.mu.Lock()
	broken = true
	hs.mu.Unlock()
	if _, err := f.send(ghostA, "t2"); err == nil || errors.Is(err, mautrix.MForbidden) {
		t.Errorf("%v", err)
	}
}

func TestIntent_HomeserverPutBackToAnOlderState_RegistersTheGhostAgain(t *testing.T) {
	for what, act := range map[string]func(f *fixture) error{
		"send": func(f *fixture) error { _, err := f.send(ghostA, "t2"); return err },
		"name": func(f *fixture) error { return f.as.Ghost(ghostA).SetDisplayName(context.Background(), "other") },
	} {
		t.Run(what, func(t *testing.T) {
			hs := newFakeHS(t)
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				if user := r.URL.Query().Get("user_id"); user == string(ghostA) && !hs.registered["irc_a"] && !strings.HasSuffix(r.URL.Path, "/register") {
					answerError(w, 403, "M_FORBIDDEN", "Application service has not registered this user ("+user+")")
					return true
				}
				return false
			}
			f := newFixture(t, hs)
			if _, err := f.send(ghostA, "t1"); err != nil {
				t.Fatal(err)
			}
			if err := f.as.Ghost(ghostA).SetDisplayName(t.Context(), "name"); err != nil {
				t.Fatal(err)
			}
			hs.mu.Lock()
			clear(hs.registered)
			clear(hs.devices)
			hs.mu.Unlock()
			if err := act(f); err != nil {
				t.Error(err)
			}
			if n := hs.count("POST /register user=" + string(ghostA)); n != 2 {
				t.Errorf("%d registrations, want 2", n)
			}
		})
	}
}
