package bridgetest_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// raw makes a request and returns all of the answer.
func (w *world) raw(token, method, path, body string) (*http.Response, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.ctx, method, w.hs.URL()+path, strings.NewReader(body))
	w.no(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	w.no(err)
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	w.no(err)
	return resp, string(data)
}

func TestLimits_RunOnTheClock_AndSayWhenToComeAgain(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, func(r *bridgetest.Registration) { r.RateLimited = true }, bridgetest.Options{Limits: bridgetest.TightLimits(), Clock: clock})
	w.ghost("demo_g1")
	const create, as = "/_matrix/client/v3/createRoom?user_id=@demo_g1:hs.test", "as-token"
	w.expect("POST", create, `{}`, 200, "")
	w.expect("POST", create, `{}`, 200, "")
	clock.Advance(563 * time.Millisecond)
	resp, body := w.raw(as, "POST", create, `{}`)
	w.is([]any{resp.StatusCode, resp.Header.Get("Retry-After"), strings.Contains(body, `"retry_after_ms":1437`)}, []any{429, "2", true})
	clock.Advance(1436 * time.Millisecond)
	w.expect("POST", create, `{}`, 429, "M_LIMIT_EXCEEDED") // what was refused cost nothing
	clock.Advance(time.Millisecond)
	w.expect("POST", create, `{}`, 200, "")
	w.ghost("demo_g2") // has a bucket of its own
	w.expect("POST", strings.ReplaceAll(create, "g1", "g2"), `{}`, 200, "")

	login := func(user string) string {
		return `{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"` + user + `"}}`
	}
	w.expect("POST", "login", login("demo_g1"), 200, "")
	w.expect("POST", "login", login("demo_g2"), 200, "")
	answer := w.expect("POST", "login", login("demo_g2"), 429, "M_LIMIT_EXCEEDED") // all come from one address
	w.is(answer["retry_after_ms"], 333334)
	w.expect("POST", "login", login("demobot"), 200, "")
}

func TestLimits_OfJoinsIntoARoom_HoldForAllGhostsTogether_AndPeopleCount(t *testing.T) {
	clock := bridgetest.NewClock()
	limits := bridgetest.Limits{JoinsByRoom: bridgetest.Rate{PerSecond: 1, Burst: 2}}
	w := startAs(t, func(r *bridgetest.Registration) { r.RateLimited = true }, bridgetest.Options{Limits: limits, Clock: clock})
	w.ghost("demo_g1")
	w.ghost("demo_g2")
	room, err := w.hs.User("alice").CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"}) // she is the first
	w.no(err)
	join := func(user string) string {
		return "/_matrix/client/v3/join/" + url.PathEscape(room.String()) + "?user_id=@" + user + ":hs.test"
	}
	w.expect("POST", join("demo_g1"), `{}`, 200, "")
	answer := w.expect("POST", join("demo_g2"), `{}`, 429, "M_LIMIT_EXCEEDED")
	w.is(answer["retry_after_ms"], 1000)
	w.expect("POST", join("demo_g1"), `{}`, 200, "") // who is in comes in for nothing
	_, err = w.hs.User("bob").Join(t.Context(), room.String())
	w.no(err)
	clock.Advance(time.Second)
	w.expect("POST", join("demo_g2"), `{}`, 429, "M_LIMIT_EXCEEDED") // bob took that place
	clock.Advance(time.Second)
	w.expect("POST", join("demo_g2"), `{}`, 200, "")
}

func TestLogin_WithRefreshToken_ExpiresOnTheClockAndIsRenewed(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, nil, clock)
	w.ghost("demo_g1")
	answer := w.expect("POST", "login", `{"type":"m.login.application_service","refresh_token":true,"identifier":{"type":"m.id.user","user":"demo_g1"}}`, 200, "")
	token, _ := answer["access_token"].(string)
	refresh, _ := answer["refresh_token"].(string)
	w.is(answer["expires_in_ms"], 300000)
	clock.Advance(5*time.Minute - time.Millisecond)
	status, _ := w.request(token, "GET", "account/whoami", "")
	w.is(status, 200)
	clock.Advance(time.Millisecond)
	status, answer = w.request(token, "GET", "account/whoami", "")
	w.is([]any{status, answer["errcode"], answer["soft_logout"]}, []any{401, "M_UNKNOWN_TOKEN", true})
	status, answer = w.request("", "POST", "refresh", `{"refresh_token":"`+refresh+`"}`)
	w.is(status, 200)
	token, _ = answer["access_token"].(string)
	status, answer = w.request(token, "GET", "account/whoami", "")
	w.is([]any{status, answer["user_id"]}, []any{200, "@demo_g1:hs.test"})
	status, _ = w.request("", "POST", "refresh", `{"refresh_token":"`+refresh+`"}`)
	w.is(status, 401)
}

func TestModerate_APerson_IsLockedOutAndBack(t *testing.T) {
	w := startAs(t, nil)
	alice := w.hs.User("alice")
	w.no(w.hs.Moderate(alice.ID(), bridgetest.Locked))
	status, answer := w.request(alice.Token(), "GET", "account/whoami", "")
	w.is([]any{status, answer["errcode"], answer["soft_logout"]}, []any{401, "M_USER_LOCKED", true})
	w.no(w.hs.Moderate(alice.ID(), bridgetest.Unmoderated))
	status, _ = w.request(alice.Token(), "GET", "account/whoami", "")
	w.is(status, 200)
	w.no(w.hs.Moderate(alice.ID(), bridgetest.Deactivated))
	status, answer = w.request(alice.Token(), "GET", "account/whoami", "")
	w.is([]any{status, answer["errcode"]}, []any{401, "M_UNKNOWN_TOKEN"})
	if err := w.hs.Moderate("@nobody:hs.test", bridgetest.Locked); err == nil {
		t.Fatal("nobody was locked")
	}
}

func TestModerate_SuspendedGhost_MayRedactItsOwn(t *testing.T) {
	w := startAs(t, nil)
	alice, ghost, room := w.withGhost()
	own := must(ghost.SendText(w.ctx, room, "own"))(w).EventID
	others := must(alice.SendText(w.ctx, room, "hers"))(w)
	w.no(w.hs.Moderate(ghost.UserID, bridgetest.Suspended))
	must(ghost.RedactEvent(w.ctx, room, own))(w)
	w.expect("PUT", "rooms/"+string(room)+"/redact/"+string(others)+"/t?user_id="+string(ghost.UserID), `{}`, 403, "M_USER_SUSPENDED")
}

func TestCreateRoom_ThatFailsHalfWay_LeavesAnOrphan(t *testing.T) {
	w := startAs(t, nil)
	w.ghost("demo_g1")
	const as = "?user_id=@demo_g1:hs.test"
	w.expect("POST", "createRoom"+as, `{"room_version":"12","power_level_content_override":{"users":{"@demo_g1:hs.test":100}}}`, 400, "M_UNKNOWN")
	rooms, _ := w.expect("GET", "joined_rooms"+as, "", 200, "")["joined_rooms"].([]any)
	w.is(len(rooms), 1)
	w.no(w.hs.Settle(w.ctx))
	var types []any
	for _, txn := range w.as.transactions() {
		for _, ev := range txn.list("events") {
			types = append(types, ev["type"])
		}
	}
	w.is(types, []string{"m.room.create", "m.room.member"})
}

func TestRoomVersion12_CreatorsHavePowerWithoutEnd(t *testing.T) {
	w := startAs(t, nil)
	g1, g2 := w.ghost("demo_g1"), w.ghost("demo_g2")
	room := must(g1.CreateRoom(w.ctx, &mautrix.ReqCreateRoom{
		RoomVersion: "12", Preset: "public_chat", CreationContent: map[string]any{"additional_creators": []string{"@demo_g2:hs.test"}},
	}))(w).RoomID
	alice := w.hs.User("alice")
	must(alice.Join(w.ctx, string(room)))(w)
	must(g2.JoinRoomByID(w.ctx, room))(w)
	w.expect("PUT", "rooms/"+string(room)+"/state/m.room.power_levels/?user_id=@demo_g2:hs.test", `{"users":{"@alice:hs.test":100},"events":{"m.room.tombstone":150}}`, 200, "")
	if err := alice.Kick(w.ctx, room, g2.UserID, ""); !bridgetest.IsErrCode(err, "M_FORBIDDEN") {
		t.Fatalf("kicking a creator: %v", err)
	}
	if _, err := alice.SendState(w.ctx, room, "m.room.tombstone", "", map[string]any{}); !bridgetest.IsErrCode(err, "M_FORBIDDEN") {
		t.Fatalf("sending a tombstone with 100: %v", err)
	}
}

func TestTransactionIDs_AreScopedByPersonality(t *testing.T) {
	for p, want := range map[bridgetest.Personality]struct{ sharedByGhosts, survivesRestart bool }{
		bridgetest.Synapse: {true, false}, bridgetest.Dendrite: {true, false},
		bridgetest.Continuwuity: {false, true}, bridgetest.Tuwunel: {false, true},
	} {
		t.Run(p.String(), func(t *testing.T) {
			w := startAs(t, nil, p)
			g1, g2 := w.ghost("demo_g1"), w.ghost("demo_g2")
			room := must(g1.CreateRoom(w.ctx, &mautrix.ReqCreateRoom{Preset: "public_chat"}))(w).RoomID
			must(g2.JoinRoomByID(w.ctx, room))(w)
			send := func(ghost string) any {
				return w.expect("PUT", "rooms/"+string(room)+"/send/m.room.message/t1?user_id="+ghost, `{"body":"x"}`, 200, "")["event_id"]
			}
			first := send("@demo_g1:hs.test")
			w.is(send("@demo_g1:hs.test"), first)
			w.is(send("@demo_g2:hs.test") == first, want.sharedByGhosts)
			w.hs.Restart()
			w.is(send("@demo_g1:hs.test") == first, want.survivesRestart)
		})
	}
}

func TestMedia_OfDendrite_IsServedToAnybody(t *testing.T) {
	for p, want := range map[bridgetest.Personality]int{bridgetest.Dendrite: 200, bridgetest.Synapse: 404} {
		w := startAs(t, nil, p)
		uri := must(w.hs.User("alice").Upload(w.ctx, "t.txt", "text/plain", []byte("bytes")))(w)
		resp, _ := w.raw("", "GET", "/_matrix/media/v3/download/"+uri.Homeserver+"/"+uri.FileID, "")
		w.is(resp.StatusCode, want)
	}
}

func TestRegister_OfAnUnsoundLocalpart_OnlySynapseTakesIt(t *testing.T) {
	for _, p := range bridgetest.Personalities() {
		w := startAs(t, nil, p)
		for _, localpart := range []string{"demo_With Capitals", "demo_" + strings.Repeat("a", 260)} {
			status, code := 400, "M_INVALID_USERNAME"
			if p == bridgetest.Synapse || p == bridgetest.SynapseOAuth {
				status, code = 200, ""
			}
			w.expect("POST", "register", `{"type":"m.login.application_service","inhibit_login":true,"username":"`+localpart+`"}`, status, code)
		}
	}
}

func TestFault_CutAnswer_TakesEffectAndBreaksOffInTheMiddle(t *testing.T) {
	w := startAs(t, nil)
	alice, _, room := w.withGhost()
	w.hs.Fault(bridgetest.Fault{Path: regexp.MustCompile("/send/"), CutAnswer: true})
	if _, err := alice.SendText(w.ctx, room, "half told"); err == nil {
		t.Fatal("the answer came whole")
	}
	w.as.event(w, body("half told"))
}

func TestFault_Delay_WaitsForTheClock(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, nil, clock)
	alice := w.hs.User("alice")
	w.hs.Fault(bridgetest.Fault{Delay: time.Hour})
	done := make(chan error, 1)
	go func() { done <- alice.Do(w.ctx, "GET", "account/whoami", nil, nil) }()
	for {
		select {
		case err := <-done:
			w.no(err)
			return
		default:
			clock.Advance(time.Hour) // whenever the request has come to its fault
		}
	}
}

func TestFault_Delay_OfARequestWhoseClientIsGone_EndsAndTakesEffect(t *testing.T) {
	w := startAs(t, nil, bridgetest.NewClock())
	alice, _, room := w.withGhost()
	w.hs.Fault(bridgetest.Fault{Path: regexp.MustCompile("/send/"), Delay: time.Hour})
	ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := alice.SendText(ctx, room, "told nobody"); err == nil {
		t.Fatal("the answer came")
	}
	w.as.event(w, body("told nobody"))
}
