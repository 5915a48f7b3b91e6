package bridgetest_test

import (
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// ephemeralOf gives what of a kind an appservice was sent, as room and user, once it has everything.
func (w *world) ephemeralOf(kind string) string {
	w.Helper()
	w.no(w.hs.Settle(w.ctx))
	var out []string
	for _, txn := range w.as.transactions() {
		for _, ev := range txn.list("ephemeral") {
			room, _ := ev["room_id"].(string)
			sender, _ := ev["sender"].(string)
			if ev["type"] == kind {
				out = append(out, room+sender)
			}
		}
	}
	return strings.Join(out, " ")
}

// rooms are five that the appservice hears of for five reasons, and one that it has nothing to do with.
func (w *world) rooms(alice *bridgetest.User) (of []id.RoomID, none id.RoomID) {
	w.Helper()
	create := func(opts bridgetest.RoomOptions) id.RoomID {
		w.Helper()
		opts.Preset = "public_chat"
		return must(alice.CreateRoom(w.ctx, opts))(w)
	}
	withGhost, withBot, aliased, none := create(bridgetest.RoomOptions{}), create(bridgetest.RoomOptions{}), create(bridgetest.RoomOptions{}), create(bridgetest.RoomOptions{})
	ghost := w.ghost("demo_bob")
	must(ghost.JoinRoomByID(w.ctx, withGhost))(w)
	w.expect("POST", "join/"+string(withBot), `{}`, 200, "")
	w.expect("PUT", "directory/room/%23demo_a:hs.test", `{"room_id":"`+string(aliased)+`"}`, 200, "")
	left := create(bridgetest.RoomOptions{})
	must(ghost.JoinRoomByID(w.ctx, left))(w)
	must(ghost.LeaveRoom(w.ctx, left))(w) // no longer of interest
	invited := create(bridgetest.RoomOptions{Invite: []id.UserID{"@demo_bob:hs.test"}})
	must(alice.SendText(w.ctx, invited, "nobody of the appservice's is in here yet"))(w)
	return []id.RoomID{withGhost, withBot, aliased}, none
}

func TestA17_TypingAndReceipts_GoWhereTheEventsOfTheirRoomGo(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	wanted, none := w.rooms(alice)
	var want []string
	for _, room := range append(wanted, none) {
		sent := must(alice.SendText(w.ctx, room, "in "+string(room)))(w)
		w.no(alice.Typing(w.ctx, room, true))
		w.no(alice.MarkRead(w.ctx, room, sent))
		if room != none {
			want = append(want, string(room))
			w.as.event(w, body("in "+string(room)))
		}
	}
	w.is(w.ephemeralOf("m.typing"), strings.Join(want, " "))
	w.is(w.ephemeralOf("m.receipt"), strings.Join(want, " "))
	for _, txn := range w.as.transactions() {
		for _, ev := range txn.list("events") {
			if ev["type"] == "m.room.message" && ev["room_id"] == string(none) {
				t.Errorf("the appservice was sent %v", ev)
			}
		}
	}
}

func TestA17_RoomOfTheRoomNamespace_IsOfInterestWithAllThatHappensInIt(t *testing.T) {
	w := start(t, func(r *bridgetest.Registration) { r.Namespaces.Rooms = []bridgetest.Namespace{{Regex: `!.*`}} })
	alice := w.hs.User("alice")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{}))(w)
	must(alice.SendText(w.ctx, room, "read"))(w)
	w.as.event(w, body("read"))
	w.no(alice.Typing(w.ctx, room, true))
	w.is(w.ephemeralOf("m.typing"), string(room))
}

func TestA17_Presence_IsSentOfWhoSharesARoomAndOfTheAppservicesOwn(t *testing.T) {
	w := start(t)
	alice, _, _ := w.withGhost()
	stranger := w.hs.User("stranger")
	must(stranger.CreateRoom(w.ctx, bridgetest.RoomOptions{}))(w)
	online := map[string]any{"presence": "online"}
	for _, u := range []*bridgetest.User{stranger, alice} {
		w.no(u.Do(w.ctx, http.MethodPut, "presence/"+string(u.ID())+"/status", online, nil))
	}
	w.ghost("demo_lonely") // is in no room at all
	w.expect("PUT", "presence/@demo_lonely:hs.test/status?user_id=@demo_lonely:hs.test", `{"presence":"online"}`, 200, "")
	w.expect("PUT", "presence/@demobot:hs.test/status", `{"presence":"unavailable"}`, 200, "")
	w.is(w.ephemeralOf("m.presence"), string(alice.ID())+" @demo_lonely:hs.test @demobot:hs.test")
}

func TestA17_WithoutOptingIn_NothingEphemeralIsSent(t *testing.T) {
	w := start(t, func(r *bridgetest.Registration) { r.ReceiveEphemeral = false })
	alice, _, room := w.withGhost()
	w.no(alice.Typing(w.ctx, room, true))
	must(alice.SendText(w.ctx, room, "after it"))(w)
	w.as.event(w, body("after it"))
	w.no(w.hs.Settle(w.ctx))
	for _, txn := range w.as.transactions() {
		for _, key := range []string{"ephemeral", "de.sorunome.msc2409.ephemeral"} {
			if _, there := txn.Body[key]; there {
				t.Errorf("a transaction has %s: %v", key, txn.Body)
			}
		}
	}
}

func TestA19_ToDevice_HasAKeyOfItsOwnThatIsThereWhenItIsOff(t *testing.T) {
	for _, off := range []bool{false, true} {
		w := startWith(t, bridgetest.Options{NoToDevice: off})
		alice, _, room := w.withGhost()
		w.expect("PUT", "devices/DEV1?user_id=@demo_bob:hs.test", `{}`, 201, "")
		message := map[string]any{"messages": map[string]any{"@demo_bob:hs.test": map[string]any{"DEV1": map[string]any{"a": 1}}}}
		w.no(alice.Do(w.ctx, http.MethodPut, "sendToDevice/m.x/1", message, nil))
		must(alice.SendText(w.ctx, room, "after it"))(w)
		w.as.event(w, body("after it"))
		w.no(w.hs.Settle(w.ctx))
		n := 0
		for _, txn := range w.as.transactions() {
			if _, there := txn.Body["de.sorunome.msc2409.to_device"]; !there {
				t.Errorf("there is no to_device in %v", txn.Body)
			}
			n += len(txn.list("de.sorunome.msc2409.to_device"))
			if len(txn.list("ephemeral")) > 0 {
				t.Errorf("a to-device message is an ephemeral event: %v", txn.Body)
			}
		}
		if n != 1 && !off || n != 0 && off {
			t.Errorf("to-device off %v: %d messages were sent", off, n)
		}
	}
}
