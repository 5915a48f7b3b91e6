//go:build goolm

package crypto_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

func TestM3_MembershipAndVisibility_MeanAnotherKey(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	bob := newPerson(w, "bob")
	before := w.session(ghost, room)
	for name, change := range map[string]func() error{
		"joins":  func() error { _, err := bob.Join(t.Context(), string(room)); return err },
		"leaves": func() error { return bob.Leave(t.Context(), room, "") },
		"visibility": func() error {
			return state(w.alice, room, "m.room.history_visibility", `{"history_visibility":"joined"}`)
		},
		"unknown": func() error { return state(w.alice, room, "m.room.history_visibility", `{"history_visibility":"odd"}`) },
		"rotation": func() error {
			return state(w.alice, room, "m.room.encryption", `{"algorithm":"m.megolm.v1.aes-sha2","rotation_period_msgs":50}`)
		},
	} {
		if name == "leaves" {
			if _, err := bob.Join(t.Context(), string(room)); err != nil {
				t.Fatal(err)
			}
			w.settle()
			before = w.session(ghost, room)
		}
		w.no(change())
		w.settle()
		after := w.session(ghost, room)
		if after == before {
			t.Errorf("%s: the same key", name)
		}
		before = after
		if name == "joins" {
			w.no(bob.Leave(t.Context(), room, ""))
			w.settle()
			before = w.session(ghost, room)
		}
	}
	w.no(bob.SetDisplayName(t.Context(), "Robert"))
	w.settle()
	if w.session(ghost, room) != before {
		t.Error("another name means another key")
	}
}

func state(p *person, room id.RoomID, typ, content string) error {
	_, err := p.SendState(p.w.t.Context(), room, typ, "", json.RawMessage(content))
	return err
}

func TestM1_M2_M4_RoomKey_SaysWhetherHistoryIsShared(t *testing.T) {
	for visibility, shared := range map[string]bool{"world_readable": true, "shared": true, "invited": false, "joined": false, "odd": false, "": false} {
		w := newWorld(t)
		ghost := w.ghost("ann")
		w.no(w.crypto.Prepare(t.Context(), ghost))
		room := w.room(ghost)
		w.no(state(w.alice, room, "m.room.history_visibility", fmt.Sprintf(`{"history_visibility":%q}`, visibility)))
		w.settle()
		sealed, err := w.seal(ghost, room, "x")
		w.no(err)
		w.alice.sync(room)
		got, err := w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, sealed.SessionID)
		if err != nil || got == nil || (got.SharedHistory != nil && *got.SharedHistory) != shared {
			t.Errorf("%q: %+v %v", visibility, got, err)
		}
		w.alice.say(room, "y", ghost) // alice's rooms have no visibility: the key says nothing
		w.settle()
		received, err := w.crypto.Session(t.Context(), ghost, room, w.alice.encrypt(room, "z", ghost).SessionID)
		if err != nil || received == nil || received.SharedHistory != nil && *received.SharedHistory {
			t.Errorf("%q: a key without the flag: %+v %v", visibility, received, err)
		}
	}
}

func TestM5_KeyRequestOfAnotherUser_IsNotAnswered(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	session := w.session(ghost, room)
	bob := newPerson(w, "bob")
	before := w.requests("/sendToDevice/")
	for _, p := range []*person{bob, w.alice} {
		w.no(p.olm.SendRoomKeyRequest(t.Context(), room, "", session, "r"+p.ID().String(), map[id.UserID][]id.DeviceID{ghost: {w.device(ghost)}}))
		w.settle()
	}
	if n := w.requests("/sendToDevice/") - before; n != 0 {
		t.Errorf("%d answers", n)
	}
}

func TestKeyRequest_ToTheSender_BringsTheKeyThatWasLost(t *testing.T) {
	w := newWorld(t)
	w.alice.signs()
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.held.Store(true)
	w.alice.say(room, "hello", ghost)
	<-w.toward // the homeserver has dropped it
	w.held.Store(false)
	ev := w.next()
	if _, err := w.crypto.Open(t.Context(), ev, ghost); !errors.Is(err, crypto.ErrNoKey) {
		t.Fatal(err)
	}
	before := w.requests("/sendToDevice/m.room_key_request/")
	for range 3 {
		w.no(w.crypto.RequestKey(t.Context(), ev, ghost))
	}
	if n := w.requests("/sendToDevice/m.room_key_request/") - before; n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
	w.alice.sync(room) // answers: it had shared the key with this device
	w.no(w.crypto.Await(t.Context(), ghost, ev))
	opened, err := w.crypto.Open(t.Context(), ev, ghost)
	if err != nil || text(opened) != "hello" {
		t.Errorf("%v %v", opened, err)
	}
}

func TestKeyWithheld_IsWhyThereIsNone(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.say(room, "hello") // with nobody
	ev := w.next()
	var sealed struct {
		Content struct {
			Session id.SessionID `json:"session_id"`
		} `json:"content"`
	}
	w.no(json.Unmarshal(ev.Raw, &sealed))
	for _, typ := range []event.Type{event.ToDeviceRoomKeyWithheld, event.ToDeviceOrgMatrixRoomKeyWithheld} {
		_, err := w.alice.client.SendToDevice(t.Context(), typ, &mautrix.ReqSendToDevice{Messages: map[id.UserID]map[id.DeviceID]*event.Content{ghost: {w.device(ghost): {
			Parsed: &event.RoomKeyWithheldEventContent{RoomID: room, Algorithm: id.AlgorithmMegolmV1, SessionID: sealed.Content.Session, Code: event.RoomKeyWithheldUnverified},
		}}}})
		w.no(err)
		w.settle()
		_, err = w.crypto.Open(t.Context(), ev, ghost)
		var withheld *event.RoomKeyWithheldEventContent
		if !errors.Is(err, crypto.ErrNoKey) || !errors.As(err, &withheld) && !strings.Contains(err.Error(), "withheld") {
			t.Error(err)
		}
	}
}

// The homeserver adds a device to a ghost's, which nobody of the bridge has signed, and asks for its keys.
func TestKeyRequest_OfADeviceThatIsNotSigned_IsNotAnswered(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	session := w.session(ghost, room)
	const name = id.DeviceID("MADEUP")
	account := w.alice.again().olm.GetAccount()
	keys := &mautrix.DeviceKeys{UserID: ghost, DeviceID: name, Algorithms: []id.Algorithm{id.AlgorithmMegolmV1, id.AlgorithmOlmV1}, Keys: map[id.DeviceKeyID]string{
		id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, name): account.IdentityKey().String(), id.NewDeviceKeyID(id.KeyAlgorithmEd25519, name): account.SigningKey().String(),
	}}
	sign := func(what any) map[id.UserID]map[id.KeyID]string {
		signature, err := account.SignJSON(what)
		w.no(err)
		return map[id.UserID]map[id.KeyID]string{ghost: {id.NewKeyID(id.KeyAlgorithmEd25519, string(name)): signature}}
	}
	keys.Signatures = sign(keys)
	answer := w.keysOf(ghost)
	answer.DeviceKeys[ghost][name] = *keys
	asked := 0
	defer w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/keys/query"):
			asked++
			_ = json.NewEncoder(rw).Encode(answer)
		case strings.HasSuffix(r.URL.Path, "/keys/claim"):
			t.Error("a key is on its way to the device")
			return false
		default:
			return false
		}
		return true
	})()
	raw, err := json.Marshal(fields{"sender": ghost, "type": "m.room_key_request", "content": fields{"action": "request", "request_id": "1", "requesting_device_id": name,
		"body": fields{"algorithm": id.AlgorithmMegolmV1, "room_id": room, "session_id": session}}})
	w.no(err)
	w.no(w.crypto.HandleKeys(t.Context(), &appservice.Event{Kind: store.KindToDevice, Type: "m.room_key_request", Sender: ghost, ToUserID: ghost, ToDeviceID: w.device(ghost), Raw: raw}))
	if asked == 0 {
		t.Error("the device was not looked at: this shows nothing")
	}
}
