package bridgetest_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestSync_PrivateReceipt_IsTheReadersAlone(t *testing.T) {
	w := start(t)
	alice, bob := w.hs.User("alice"), w.hs.User("bob")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(w)
	must(bob.Join(w.ctx, string(room)))(w)
	sent := must(alice.SendText(w.ctx, room, "read me"))(w)
	w.no(bob.Do(w.ctx, "POST", "rooms/"+string(room)+"/receipt/m.read.private/"+string(sent), struct{}{}, nil))
	must(bob.WaitFor(w.ctx, room, bridgetest.OfType("m.receipt")))(w)
	_, answer := w.request(alice.Token(), "GET", "sync", "")
	if data, _ := json.Marshal(answer); len(data) == 0 || containsType(data, "m.receipt") {
		t.Fatalf("alice sees bob's private receipt: %s", data)
	}
}

func containsType(data []byte, typ string) bool {
	var answer struct {
		Rooms struct {
			Join map[string]struct {
				Ephemeral struct{ Events []struct{ Type string } }
			}
		}
	}
	_ = json.Unmarshal(data, &answer)
	for _, room := range answer.Rooms.Join {
		for _, ev := range room.Ephemeral.Events {
			if ev.Type == typ {
				return true
			}
		}
	}
	return false
}

func TestTyping_NotRenewed_EndsByItself(t *testing.T) {
	w := start(t)
	alice, bob := w.hs.User("alice"), w.hs.User("bob")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(w)
	must(bob.Join(w.ctx, string(room)))(w)
	must(alice.WaitFor(w.ctx, room, bridgetest.Member(bob.ID(), "join")))(w)
	w.no(bob.Do(w.ctx, "PUT", fmt.Sprintf("rooms/%s/typing/%s", room, bob.ID()), map[string]any{"typing": true, "timeout": 1}, nil))
	must(alice.WaitFor(w.ctx, room, func(ev bridgetest.Event) bool { return ev.Type == "m.typing" && len(ev.TypingUsers()) == 0 }))(w)
}

func TestToDevice_ForAUser_ComesOnceAndStaysUntilSeen(t *testing.T) {
	w := startWith(t, bridgetest.Options{NoToDevice: true})
	alice, bob := w.hs.User("alice"), w.hs.User("bob")
	w.no(alice.Do(w.ctx, "PUT", "sendToDevice/m.x/1", map[string]any{"messages": map[string]any{string(bob.ID()): map[string]any{"*": map[string]any{"a": 1}}}}, nil))
	sync := func(since string) (string, int) {
		var answer struct {
			NextBatch string `json:"next_batch"`
			ToDevice  struct{ Events []any }
		}
		var raw map[string]json.RawMessage
		w.no(bob.Do(w.ctx, "GET", "sync?since="+since, nil, &raw))
		w.no(json.Unmarshal(raw["next_batch"], &answer.NextBatch))
		if messages := raw["to_device"]; messages != nil { // it is left out when it is empty
			w.no(json.Unmarshal(messages, &answer.ToDevice))
		}
		return answer.NextBatch, len(answer.ToDevice.Events)
	}
	next, n := sync("")
	w.is(n, 1)
	_, n = sync("") // the answer was lost
	w.is(n, 1)
	_, n = sync(next)
	w.is(n, 0)
	_, n = sync("")
	w.is(n, 0)

	// With the feature off, messages for ghosts are kept too, and not pushed.
	_, _, room := w.withGhost()
	w.expect("PUT", "devices/DEV1?user_id=@demo_bob:hs.test", `{}`, 201, "")
	w.no(alice.Do(w.ctx, "PUT", "sendToDevice/m.x/2", map[string]any{"messages": map[string]any{"@demo_bob:hs.test": map[string]any{"*": map[string]any{}}}}, nil))
	must(alice.SendText(w.ctx, room, "after"))(w)
	w.as.event(w, body("after"))
	for _, txn := range w.as.transactions() {
		w.is(len(txn.list("de.sorunome.msc2409.to_device")), 0)
	}
}

func TestHistory_BeforeTheJoin_IsShownAsTheRoomSays(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	for visibility, want := range map[string]int{"shared": 2, "joined": 1, "world_readable": 2} {
		bob := w.hs.User("bob_" + visibility)
		room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(w)
		must(alice.SendState(w.ctx, room, "m.room.history_visibility", "", map[string]any{"history_visibility": visibility}))(w)
		must(alice.SendText(w.ctx, room, "before"))(w)
		must(bob.Join(w.ctx, string(room)))(w)
		must(alice.SendText(w.ctx, room, "after"))(w)
		w.no(bob.Leave(w.ctx, room, ""))
		must(alice.SendText(w.ctx, room, "when he was gone"))(w)
		if visibility == "world_readable" {
			want++
		}
		seen := 0
		for _, ev := range must(bob.Timeline(w.ctx, room))(w) {
			if ev.MsgType() != "" {
				seen++
			}
		}
		if seen != want {
			t.Errorf("%s: saw %d messages, want %d", visibility, seen, want)
		}
	}
}

func TestPush_RoomInANamespace_NeedsNoGhost(t *testing.T) {
	w := start(t, func(r *bridgetest.Registration) {
		r.Namespaces.Rooms = []bridgetest.Namespace{{Regex: `!.*:hs\.test`}}
	})
	alice := w.hs.User("alice")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{}))(w)
	must(alice.SendText(w.ctx, room, "overheard"))(w)
	w.is(w.as.event(w, body("overheard"))["room_id"], id.RoomID(room))
}

func TestSettle_WithoutURL_HasNothingToWaitFor(t *testing.T) {
	w := start(t, func(r *bridgetest.Registration) { r.URL = "" })
	w.withGhost()
	w.no(w.hs.Settle(w.ctx))
	w.hs.RemoveAppService("demo")
	w.expectUnknown()
}

func (w *world) expectUnknown() {
	w.Helper()
	w.expect("GET", "account/whoami", "", 401, "M_UNKNOWN_TOKEN")
}

// Measured on Synapse 1.160: a registration's sender_localpart has no /sync, with whatever token. Of others that is not known.
func TestSync_OfASenderLocalpart_SynapseRefuses(t *testing.T) {
	for p, want := range map[bridgetest.Personality]int{
		bridgetest.Synapse: 500, bridgetest.SynapseOAuth: 500, bridgetest.Dendrite: 200, bridgetest.Continuwuity: 200, bridgetest.Tuwunel: 200,
	} {
		w := startAs(t, nil, p)
		w.request("as-token", "POST", "register", `{"type":"m.login.application_service","username":"demo_a","inhibit_login":true}`)
		if code, _ := w.request("as-token", "GET", "sync", ""); code != want {
			t.Errorf("%s answers the bot %d, want %d", p, code, want)
		}
		if code, _ := w.request("as-token", "GET", "sync?user_id=@demo_a:hs.test", ""); code != 200 {
			t.Errorf("%s answers a ghost %d", p, code)
		}
	}
}
