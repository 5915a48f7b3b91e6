package bridgetest_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// withGhost makes a room with alice and a ghost in it, and lets the appservice have all of that.
func (w *world) withGhost() (*bridgetest.User, *mautrix.Client, id.RoomID) {
	w.Helper()
	alice, ghost := w.hs.User("alice"), w.ghost("demo_bob")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(w)
	must(ghost.JoinRoomByID(w.ctx, room))(w)
	w.no(w.hs.Settle(w.ctx))
	return alice, ghost, room
}

func TestPush_EventOfARoomWithAGhost_HasSynapsesFields(t *testing.T) {
	w := start(t)
	alice, ghost, room := w.withGhost()
	sent := must(alice.SendText(w.ctx, room, "hello"))(w)
	ev := w.as.event(w, body("hello"))
	w.is([]any{ev["event_id"], ev["room_id"], ev["sender"], ev["user_id"], ev["type"]}, []any{sent, room, alice.ID(), alice.ID(), "m.room.message"})
	if unsigned, _ := ev["unsigned"].(map[string]any); unsigned["age"] == nil || ev["age"] == nil || ev["origin_server_ts"] == nil {
		t.Fatalf("fields are missing in %v", ev)
	}
	last := w.as.transactions()[len(w.as.transactions())-1]
	w.is([]any{last.Auth, len(last.list("ephemeral")), last.Body["de.sorunome.msc2409.to_device"]}, []any{"Bearer hs-token", 0, []any{}})

	// The ghost's own events come back, and its leave although it is gone then.
	must(ghost.SendText(w.ctx, room, "echo"))(w)
	w.as.event(w, body("echo"))
	must(ghost.LeaveRoom(w.ctx, room))(w)
	left := w.as.event(w, func(ev map[string]any) bool {
		content, _ := ev["content"].(map[string]any)
		return content["membership"] == "leave"
	})
	if left["prev_content"] == nil || left["replaces_state"] == nil {
		t.Fatalf("the leave does not tell what it replaced: %v", left)
	}
	w.no(w.hs.Settle(w.ctx))
	before := len(w.as.transactions())
	must(alice.SendText(w.ctx, room, "nobody listens"))(w)
	w.no(w.hs.Settle(w.ctx))
	w.is(len(w.as.transactions()), before)
}

func TestPush_InviteOfAnUnregisteredGhost_AsksBeforeItDelivers(t *testing.T) {
	w := start(t)
	w.as.answers(func(a asked) (int, string) {
		if strings.HasPrefix(a.Path, "/_matrix/app/v1/users/") {
			w.expect("POST", "register", `{"type":"m.login.application_service","username":"demo_new","inhibit_login":true}`, 200, "")
		}
		return 200, "{}"
	})
	alice := w.hs.User("alice")
	must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Name: "Lobby", Invite: []id.UserID{"@demo_new:hs.test"}}))(w)
	all := w.as.until(w, func(all []asked) bool { return len(all) >= 2 })
	w.is(all[0].Path, "/_matrix/app/v1/users/%40demo_new%3Ahs.test")
	invite := all[1].list("events")[0]
	if state, _ := invite["invite_room_state"].([]any); len(state) < 3 {
		t.Fatalf("the invite lacks the room's state: %v", invite)
	}
	if !w.hs.Registered("@demo_new:hs.test") {
		t.Fatal("the ghost was not registered meanwhile")
	}
}

func TestPush_AfterAFailure_SameIDAgainThenTheRestInOrder(t *testing.T) {
	w := start(t)
	alice, _, room := w.withGhost()
	done := len(w.as.transactions())
	fail := make(chan int, 3)
	fail <- 500
	fail <- 302
	fail <- 200 // but with no JSON in it
	w.as.answers(func(asked) (int, string) {
		select {
		case status := <-fail:
			return status, ""
		default:
			return 202, "{}"
		}
	})
	must(alice.SendText(w.ctx, room, "one"))(w)
	w.as.event(w, body("one"))
	must(alice.SendText(w.ctx, room, "two"))(w)
	w.no(alice.Typing(w.ctx, room, true))
	must(alice.SendText(w.ctx, room, "three"))(w)
	w.no(w.hs.Settle(w.ctx))

	got := w.as.transactions()[done:]
	w.is(got[0].transaction(), got[1].transaction())
	w.is(got[0].transaction(), got[2].transaction())
	w.is(got[0].transaction(), got[3].transaction())
	var bodies []string
	last := 0
	for _, txn := range got[3:] {
		n, err := strconv.Atoi(txn.transaction())
		w.no(err)
		if n <= last {
			t.Fatalf("transaction %d came after %d", n, last)
		}
		last = n
		for _, ev := range txn.list("events") {
			content, _ := ev["content"].(map[string]any)
			bodies = append(bodies, fmt.Sprint(content["body"]))
		}
	}
	w.is(bodies, []string{"one", "two", "three"})
	state := w.hs.AppServiceState("demo")
	w.is([]any{state.Up, state.Failed, state.Pending, state.Queued, state.LastID}, []any{true, 3, 0, 0, strconv.Itoa(last)})
}

func TestPush_WhileDown_DropsEphemeralAndToDevice(t *testing.T) {
	w := start(t)
	alice, _, room := w.withGhost()
	down := make(chan struct{})
	w.as.answers(func(asked) (int, string) {
		select {
		case <-down:
			return 200, "{}"
		default:
			return 500, "{}"
		}
	})
	w.expect("PUT", "devices/DEV1?user_id=@demo_bob:hs.test", `{}`, 201, "")
	w.no(alice.Typing(w.ctx, room, true))
	w.as.until(w, func([]asked) bool { return !w.hs.AppServiceState("demo").Up })
	w.no(alice.Do(w.ctx, "PUT", "sendToDevice/m.x/1", map[string]any{"messages": map[string]any{"@demo_bob:hs.test": map[string]any{"*": map[string]any{"a": 1}}}}, nil))
	must(alice.SendText(w.ctx, room, "kept"))(w)
	for w.hs.AppServiceState("demo").Queued > 0 {
		time.Sleep(time.Millisecond)
	}
	failed := len(w.as.transactions())
	close(down)
	w.no(w.hs.Settle(w.ctx))
	w.as.event(w, body("kept"))
	for _, txn := range w.as.transactions()[failed:] {
		if len(txn.list("ephemeral"))+len(txn.list("de.sorunome.msc2409.to_device")) > 0 {
			t.Fatalf("more than events outlived the failure: %v", txn.Body)
		}
	}
}

func TestPush_ManyEvents_AtMostHundredAndInOrder(t *testing.T) {
	w := start(t)
	alice, _, room := w.withGhost()
	hold := make(chan struct{})
	w.as.answers(func(asked) (int, string) { <-hold; return 200, "{}" })
	const n = 250
	for i := range n {
		must(alice.SendText(w.ctx, room, strconv.Itoa(i)))(w)
	}
	close(hold)
	w.no(w.hs.Settle(w.ctx))
	var bodies []int
	for _, txn := range w.as.transactions() {
		events := txn.list("events")
		if len(events) > 100 {
			t.Fatalf("%d events in a transaction", len(events))
		}
		for _, ev := range events {
			content, _ := ev["content"].(map[string]any)
			if i, err := strconv.Atoi(fmt.Sprint(content["body"])); err == nil {
				bodies = append(bodies, i)
			}
		}
	}
	if len(bodies) != n || !slices.IsSorted(bodies) {
		t.Fatalf("got %v", bodies)
	}
}

func TestPush_Ephemeral_UnderTheRegisteredKey(t *testing.T) {
	for _, c := range []struct {
		name, key string
		change    func(*bridgetest.Registration)
	}{
		{"stable", "ephemeral", func(*bridgetest.Registration) {}},
		{"unstable", "de.sorunome.msc2409.ephemeral", func(r *bridgetest.Registration) { r.ReceiveEphemeral, r.PushEphemeral = false, true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, c.change)
			alice, _, room := w.withGhost()
			w.no(alice.Typing(w.ctx, room, true))
			typing := w.as.element(w, c.key, func(ev map[string]any) bool { return ev["type"] == "m.typing" })
			w.is(typing, map[string]any{"type": "m.typing", "room_id": room, "content": map[string]any{"user_ids": []id.UserID{alice.ID()}}})
			sent := must(alice.SendText(w.ctx, room, "read me"))(w)
			w.no(alice.MarkRead(w.ctx, room, sent))
			w.as.element(w, c.key, func(ev map[string]any) bool { return ev["type"] == "m.receipt" })
			w.no(alice.Do(w.ctx, "PUT", "presence/"+string(alice.ID())+"/status", map[string]any{"presence": "online"}, nil))
			w.as.element(w, c.key, func(ev map[string]any) bool { return ev["type"] == "m.presence" && ev["sender"] == string(alice.ID()) })
		})
	}
	t.Run("not registered for", func(t *testing.T) {
		w := start(t, func(r *bridgetest.Registration) { r.ReceiveEphemeral = false })
		alice, _, room := w.withGhost()
		w.no(alice.Typing(w.ctx, room, true))
		must(alice.SendText(w.ctx, room, "x"))(w)
		w.no(w.hs.Settle(w.ctx))
		for _, txn := range w.as.transactions() {
			if len(txn.Body) != 1 {
				t.Fatalf("more than events in %v", txn.Body)
			}
		}
	})
}

func TestPush_DeviceExtensions_ListsCountsAndToDevice(t *testing.T) {
	w := start(t, func(r *bridgetest.Registration) { r.DeviceExtensions = true })
	alice, _, room := w.withGhost()
	w.expect("PUT", "devices/DEV1?user_id=@demo_bob:hs.test", `{}`, 201, "")
	w.expect("POST", "keys/upload?user_id=@demo_bob:hs.test&device_id=DEV1", `{"one_time_keys":{"signed_curve25519:A":{"key":"a"}}}`, 200, "")
	w.as.until(w, func(all []asked) bool {
		return slices.ContainsFunc(all, func(a asked) bool {
			lists, _ := a.Body["org.matrix.msc3202.device_lists"].(map[string]any)
			changed, _ := lists["changed"].([]any)
			return slices.Contains(changed, any("@demo_bob:hs.test"))
		})
	})
	w.no(alice.Do(w.ctx, "PUT", "sendToDevice/m.room_key_request/1", map[string]any{
		"messages": map[string]any{"@demo_bob:hs.test": map[string]any{"DEV1": map[string]any{"a": 1}}},
	}, nil))
	w.is(w.as.element(w, "de.sorunome.msc2409.to_device", func(map[string]any) bool { return true }), map[string]any{
		"type": "m.room_key_request", "sender": alice.ID(), "content": map[string]int{"a": 1},
		"to_user_id": "@demo_bob:hs.test", "to_device_id": "DEV1",
	})
	must(alice.SendText(w.ctx, room, "counted"))(w)
	w.as.event(w, body("counted"))
	txns := w.as.transactions()
	last := txns[len(txns)-1]
	counts := map[string]any{"@demo_bob:hs.test": map[string]any{"DEV1": map[string]int{"signed_curve25519": 1}}}
	w.is(last.Body["org.matrix.msc3202.device_one_time_key_counts"], counts)
	w.is(last.Body["org.matrix.msc3202.device_one_time_keys_count"], counts)
	w.is(last.Body["org.matrix.msc3202.device_unused_fallback_key_types"], map[string]any{"@demo_bob:hs.test": map[string]any{"DEV1": []string{}}})
}

func TestRestart_WhileDown_NothingIsRetriedUntilTheNextEvent(t *testing.T) {
	w := startWith(t, bridgetest.Options{RestartSequence: true})
	alice, _, room := w.withGhost()
	w.as.answers(func(asked) (int, string) { return 500, "" })
	must(alice.SendText(w.ctx, room, "held"))(w)
	w.as.until(w, func([]asked) bool { return !w.hs.AppServiceState("demo").Up })
	w.hs.Restart()
	w.as.answers(nil)
	w.expect("POST", "/_matrix/client/v1/appservice/demo/ping", `{}`, 200, "")
	before := len(w.as.transactions())
	time.Sleep(100 * time.Millisecond) // ten times the first pause
	w.is(len(w.as.transactions()), before)
	must(alice.SendText(w.ctx, room, "next"))(w)
	w.as.event(w, body("next"))
	w.no(w.hs.Settle(w.ctx))
	got := w.as.transactions()[before:]
	w.is(len(got), 2)
	w.is(got[0].list("events")[0]["content"], map[string]any{"body": "held", "msgtype": "m.text"})

	w.hs.Restart() // with nothing pending the sequence begins again
	must(alice.SendText(w.ctx, room, "anew"))(w)
	w.as.event(w, body("anew"))
	w.no(w.hs.Settle(w.ctx))
	w.is(w.hs.AppServiceState("demo").LastID, "1")
}

func TestPing_AnswersAsSynapseAndEndsAWait(t *testing.T) {
	w := startWith(t, bridgetest.Options{RetryUnit: time.Hour})
	const ping = "/_matrix/client/v1/appservice/demo/ping"
	if answer := w.expect("POST", ping, `{"transaction_id":"abc"}`, 200, ""); answer["duration_ms"] == nil {
		t.Fatalf("no duration in %v", answer)
	}
	all := w.as.until(w, func(all []asked) bool { return len(all) == 1 })
	w.is([]any{all[0].Method, all[0].Path, all[0].Body, all[0].Auth}, []any{"POST", "/_matrix/app/v1/ping", map[string]string{"transaction_id": "abc"}, "Bearer hs-token"})
	w.expect("POST", "/_matrix/client/v1/appservice/other/ping", `{}`, 403, "M_FORBIDDEN")
	w.expect("POST", ping, ``, 400, "M_NOT_JSON")
	status, answer := w.request(w.hs.User("alice").Token(), "POST", ping, `{}`)
	w.is([]any{status, answer["errcode"]}, []any{403, "M_FORBIDDEN"})

	alice, _, room := w.withGhost()
	w.as.answers(func(asked) (int, string) { return 500, `{"errcode":"M_UNKNOWN"}` })
	must(alice.SendText(w.ctx, room, "waits"))(w)
	w.as.event(w, body("waits"))
	answer = w.expect("POST", ping, `{}`, 502, "M_BAD_STATUS")
	w.is([]any{answer["status"], answer["body"]}, []any{500, `{"errcode":"M_UNKNOWN"}`})
	w.as.answers(func(asked) (int, string) { return 200, "" })
	w.expect("POST", ping, `{}`, 502, "M_CONNECTION_FAILED")
	w.as.answers(nil)
	for w.hs.AppServiceState("demo").Up { // the failure is noted just after the answer
		time.Sleep(time.Millisecond)
	}
	w.expect("POST", ping, `{}`, 200, "")
	w.no(w.hs.Settle(w.ctx)) // although the pause is two hours long
	w.hs.SetAppServiceURL("demo", "")
	w.expect("POST", ping, `{}`, 400, "M_URL_NOT_SET")
}

func TestClose_WhileAnAppserviceHangs_Ends(t *testing.T) {
	hs, err := bridgetest.StartHomeserver(bridgetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	side := newBridgeSide(t)
	release := make(chan struct{})
	side.answers(func(asked) (int, string) { <-release; return 200, "{}" })
	defer close(release)
	w := &world{T: t, ctx: t.Context(), hs: hs, as: side}
	w.no(hs.AddRegistration(registration(side.url)))
	alice := hs.User("alice")
	must(alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Invite: []id.UserID{"@demobot:hs.test"}}))(w)
	side.until(w, func(all []asked) bool { return len(all) > 0 })
	waiting := make(chan error, 1)
	go func() {
		_, err := alice.WaitFor(t.Context(), "", bridgetest.Text("never"))
		waiting <- err
	}()
	w.no(hs.Close())
	if err := <-waiting; err == nil {
		t.Fatal("a wait ended well on a closed homeserver")
	}
}
