//go:build goolm

package crypto_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// prepared is a world with a prepared bot in an encrypted room, and a hand that writes to it.
func prepared(t *testing.T) (w *world, bot id.UserID, room id.RoomID, h *hand) {
	w = newWorld(t)
	bot = w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room = w.room(bot)
	return w, bot, room, w.hand(w.alice, bot)
}

type fields = map[string]any

// refusal is what can be wrong with the payload of an Olm message.
type refusal struct {
	spoil func(p fields)
	want  error
}

// refuses shows that each message is refused and named, that its key is not taken, and that a good one is read afterwards
// over the same session.
func refuses(t *testing.T, cases map[string]refusal) {
	w, bot, room, h := prepared(t)
	for name, c := range cases {
		key := w.roomKey(room)
		payload := h.payload(key)
		c.spoil(payload)
		err := w.crypto.HandleKeys(t.Context(), h.encrypt(payload))
		if !errors.Is(err, c.want) || !appservice.IsPermanent(err) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		ev := w.alice.sealedWith(key, "$"+name, name)
		if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) {
			t.Errorf("%s: the key was taken: %v", name, err)
		}
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
		if opened, err := w.crypto.Open(t.Context(), ev, bot); err != nil || text(opened) != name {
			t.Errorf("%s: a good key afterwards: %q, %v", name, text(opened), err)
		}
	}
}

func deviceKeys(p fields) fields { return p["sender_device_keys"].(fields) }

func TestI2_SigningKeyThatIsNotTheDevices_IsRefused(t *testing.T) {
	refuses(t, map[string]refusal{
		"the payload's differs": {func(p fields) { p["keys"] = fields{"ed25519": strings.Repeat("A", 43)} }, crypto.ErrMismatch},
		"there is none":         {func(p fields) { p["keys"] = fields{} }, crypto.ErrMismatch},
		"the device's differs": {func(p fields) {
			for name := range deviceKeys(p)["keys"].(fields) {
				if strings.HasPrefix(name, "ed25519:") {
					deviceKeys(p)["keys"].(fields)[name] = strings.Repeat("A", 43)
				}
			}
		}, crypto.ErrMismatch},
	})
}

func TestI3_DeviceKeysThatAreNotTheSenders_AreRefused(t *testing.T) {
	refuses(t, map[string]refusal{
		"of another user": {func(p fields) { deviceKeys(p)["user_id"] = "@eve:hs.test" }, crypto.ErrMismatch},
		"another curve25519 key": {func(p fields) {
			for name := range deviceKeys(p)["keys"].(fields) {
				if strings.HasPrefix(name, "curve25519:") {
					deviceKeys(p)["keys"].(fields)[name] = strings.Repeat("A", 43)
				}
			}
		}, crypto.ErrMismatch},
		"changed after they were signed": {func(p fields) { deviceKeys(p)["algorithms"] = []string{"m.other"} }, crypto.ErrMismatch},
		"not signed":                     {func(p fields) { delete(deviceKeys(p), "signatures") }, crypto.ErrMismatch},
		"not an object":                  {func(p fields) { p["sender_device_keys"] = "keys" }, crypto.ErrCorrupt},
	})
}

// Whoever makes up what his device is can sign that as well: with the key that has signed the message.
func TestI2_I3_DeviceKeysOfAnotherDevice_SignedWithThisOnesKey_AreRefused(t *testing.T) {
	for name, change := range map[string]func(p fields, device string){
		"another ed25519 key": func(p fields, device string) {
			deviceKeys(p)["keys"].(fields)["ed25519:"+device] = strings.Repeat("A", 43)
		},
		"another curve25519 key": func(p fields, device string) {
			deviceKeys(p)["keys"].(fields)["curve25519:"+device] = strings.Repeat("A", 43)
		},
		"no curve25519 key": func(p fields, device string) { delete(deviceKeys(p)["keys"].(fields), "curve25519:"+device) },
		"another user":      func(p fields, _ string) { deviceKeys(p)["user_id"] = "@eve:hs.test" },
	} {
		w, bot, room, h := prepared(t)
		w.with(func(o *crypto.Options) { o.Receive = crypto.TrustAny })
		key := w.roomKey(room)
		p, device := h.payload(key), string(w.alice.DeviceID())
		change(p, device)
		delete(deviceKeys(p), "signatures")
		signature, err := w.alice.olm.GetAccount().SignJSON(deviceKeys(p))
		w.no(err)
		deviceKeys(p)["signatures"] = fields{string(w.alice.ID()): fields{"ed25519:" + device: signature}}
		if err := w.crypto.HandleKeys(t.Context(), h.encrypt(p)); !errors.Is(err, crypto.ErrMismatch) || !appservice.IsPermanent(err) {
			t.Errorf("%s: got %v, want ErrMismatch", name, err)
		}
		if _, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "x"), bot); !errors.Is(err, crypto.ErrNoKey) {
			t.Errorf("%s: the key was taken: %v", name, err)
		}
	}
}

func TestI4_DeviceKeysUnderTheOldName_AreReadAsWell_AndMayBeMissing(t *testing.T) {
	rename := func(p fields) {
		p["org.matrix.msc4147.device_keys"] = p["sender_device_keys"]
		delete(p, "sender_device_keys")
	}
	refuses(t, map[string]refusal{
		"of another user, under the old name": {func(p fields) { deviceKeys(p)["user_id"] = "@eve:hs.test"; rename(p) }, crypto.ErrMismatch},
	})
	w, bot, room, h := prepared(t)
	for name, change := range map[string]func(fields){"old name": rename, "missing": func(p fields) { delete(p, "sender_device_keys") },
		"null": func(p fields) { p["sender_device_keys"] = nil }} {
		key := w.roomKey(room)
		payload := h.payload(key)
		change(payload)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(payload)))
		if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$"+name, name), bot); err != nil || text(opened) != name {
			t.Errorf("%s: %q, %v", name, text(opened), err)
		}
	}
}

func TestOlm_PayloadThatIsNotForThisDevice_IsRefused(t *testing.T) {
	refuses(t, map[string]refusal{
		"from another sender":          {func(p fields) { p["sender"] = "@eve:hs.test" }, crypto.ErrMismatch},
		"from another, of no device":   {func(p fields) { p["sender"] = "@eve:hs.test"; delete(p, "sender_device_keys") }, crypto.ErrMismatch},
		"for another user":             {func(p fields) { p["recipient"] = "@test_other:hs.test" }, crypto.ErrNotForMe},
		"for another device's key":     {func(p fields) { p["recipient_keys"] = fields{"ed25519": strings.Repeat("A", 43)} }, crypto.ErrNotForMe},
		"a key of another session":     {func(p fields) { p["content"].(fields)["session_id"] = strings.Repeat("A", 43) }, crypto.ErrCorrupt},
		"a key that is none":           {func(p fields) { p["content"].(fields)["session_key"] = "AAAA" }, crypto.ErrCorrupt},
		"a key of another algorithm":   {func(p fields) { p["content"].(fields)["algorithm"] = "m.other" }, crypto.ErrCorrupt},
		"a key of no room":             {func(p fields) { delete(p["content"].(fields), "room_id") }, crypto.ErrCorrupt},
		"a room key that is no object": {func(p fields) { p["content"] = "key" }, crypto.ErrCorrupt},
	})
}

func TestOlm_AlteredOrMisdirectedMessage_IsRefused_AndTheTrueOneIsRead(t *testing.T) {
	w, bot, room, h := prepared(t)
	spoil := map[string]struct {
		change func(body fields, content fields, ev *appservice.Event)
		want   error
	}{
		"altered": {func(body, _ fields, _ *appservice.Event) {
			raw := []byte(body["body"].(string))
			raw[len(raw)-20] ^= 1
			if raw[len(raw)-20] < '0' {
				raw[len(raw)-20] = 'x'
			}
			body["body"] = string(raw)
		}, crypto.ErrCorrupt},
		"cut":           {func(body, _ fields, _ *appservice.Event) { body["body"] = body["body"].(string)[:40] }, crypto.ErrCorrupt},
		"empty":         {func(body, _ fields, _ *appservice.Event) { body["body"] = "" }, crypto.ErrCorrupt},
		"not base64":    {func(body, _ fields, _ *appservice.Event) { body["body"] = "!!!" }, crypto.ErrCorrupt},
		"no such type":  {func(body, _ fields, _ *appservice.Event) { body["type"] = 7 }, crypto.ErrCorrupt},
		"for others":    {func(body, content fields, _ *appservice.Event) { content["ciphertext"] = fields{"other": body} }, crypto.ErrNotForMe},
		"not Olm":       {func(_, content fields, _ *appservice.Event) { content["algorithm"] = "m.other" }, crypto.ErrCorrupt},
		"other device":  {func(_, _ fields, ev *appservice.Event) { ev.ToDeviceID = "NOSUCH" }, crypto.ErrNoMachine},
		"other user":    {func(_, _ fields, ev *appservice.Event) { ev.ToUserID = w.ghost("other") }, crypto.ErrNoMachine},
		"from somebody": {func(_, content fields, _ *appservice.Event) { content["sender_key"] = strings.Repeat("A", 43) }, crypto.ErrCorrupt},
	}
	for _, established := range []bool{false, true} { // the first message of a session, and later ones
		for name, c := range spoil {
			if !established {
				h = w.hand(w.alice, bot)
			}
			key := w.roomKey(room)
			good := h.encrypt(h.payload(key))
			bad := *good
			var whole fields
			w.no(json.Unmarshal(good.Raw, &whole))
			content := whole["content"].(fields)
			c.change(content["ciphertext"].(fields)[string(h.device.IdentityKey)].(fields), content, &bad)
			bad.Raw, _ = json.Marshal(whole)
			if err := w.crypto.HandleKeys(t.Context(), &bad); !errors.Is(err, c.want) || !appservice.IsPermanent(err) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
			if err := w.crypto.HandleKeys(t.Context(), good); err != nil {
				t.Errorf("%s: the true one afterwards: %v", name, err)
			}
			if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$"+name, name), bot); err != nil || text(opened) != name {
				t.Errorf("%s: %q, %v", name, text(opened), err)
			}
		}
	}
}

func TestOlm_SameMessageAgain_ChangesNothing(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	ev := h.encrypt(h.payload(key))
	for range 3 {
		w.no(w.crypto.HandleKeys(t.Context(), ev))
	}
	w.reopen()
	w.no(w.crypto.HandleKeys(t.Context(), ev))
	if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "once"), bot); err != nil || text(opened) != "once" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

func TestOpen_KeyThatComesLater_OpensTheSameEvent(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	ev := w.alice.sealedWith(key, "$1", "early")
	if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Fatalf("got %v, want ErrNoKey", err)
	}
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
	for range 2 { // as after a crash before its progress was written
		if opened, err := w.crypto.Open(t.Context(), ev, bot); err != nil || text(opened) != "early" {
			t.Errorf("%q, %v", text(opened), err)
		}
		w.reopen()
	}
}

func TestOpen_KeyFromALaterMessageOn_IsNoKey(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	before := w.alice.sealedWith(key, "$1", "before")
	payload := h.payload(key)
	payload["content"].(fields)["session_key"] = key.Internal.Key() // as it is after the first message
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(payload)))
	if _, err := w.crypto.Open(t.Context(), before, bot); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("got %v, want ErrNoKey", err)
	}
	if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$2", "after"), bot); err != nil || text(opened) != "after" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

func TestOpen_MessageUnderAnotherID_IsReplayed(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
	ev := w.alice.sealedWith(key, "$1", "once")
	_, err := w.crypto.Open(t.Context(), ev, bot)
	w.no(err)
	for range 2 {
		again := &appservice.Event{Kind: ev.Kind, Type: ev.Type, Sender: ev.Sender, RoomID: room, ID: "$2", Raw: []byte(strings.Replace(string(ev.Raw), "$1", "$2", 1))}
		if _, err := w.crypto.Open(t.Context(), again, bot); !errors.Is(err, crypto.ErrReplayed) {
			t.Errorf("got %v, want ErrReplayed", err)
		}
		w.reopen()
	}
	if opened, err := w.crypto.Open(t.Context(), ev, bot); err != nil || text(opened) != "once" {
		t.Errorf("the first one again: %q, %v", text(opened), err)
	}
}

func TestOpen_AlteredEvent_IsRefused_AndTheTrueOneIsRead(t *testing.T) {
	w, bot, room, h := prepared(t)
	other := w.room(bot)
	for name, c := range map[string]struct {
		change func(content fields) id.RoomID
		want   error
	}{
		"altered": {func(content fields) id.RoomID {
			raw := []byte(content["ciphertext"].(string))
			raw[60] = map[bool]byte{true: 'B', false: 'A'}[raw[60] == 'A']
			content["ciphertext"] = string(raw)
			return room
		}, crypto.ErrCorrupt},
		"cut":             {func(content fields) id.RoomID { content["ciphertext"] = "AwgA"; return room }, crypto.ErrCorrupt},
		"no ciphertext":   {func(content fields) id.RoomID { delete(content, "ciphertext"); return room }, crypto.ErrCorrupt},
		"not Megolm":      {func(content fields) id.RoomID { content["algorithm"] = "m.other"; return room }, crypto.ErrCorrupt},
		"another session": {func(content fields) id.RoomID { content["session_id"] = strings.Repeat("A", 43); return room }, crypto.ErrNoKey},
		"another room":    {func(content fields) id.RoomID { return other }, crypto.ErrNoKey},
	} {
		key := w.roomKey(room)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
		good := w.alice.sealedWith(key, "$"+name, name)
		var whole fields
		w.no(json.Unmarshal(good.Raw, &whole))
		content := whole["content"].(fields)
		bad := w.alice.encryptedEvent(c.change(content), "$bad"+name, content)
		if _, err := w.crypto.Open(t.Context(), bad, bot); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if opened, err := w.crypto.Open(t.Context(), good, bot); err != nil || text(opened) != name {
			t.Errorf("%s: the true one: %q, %v", name, text(opened), err)
		}
	}
}

// mautrix tells of this error as of an event that cannot be decrypted; but nothing is wrong with the event.
func TestOpen_NumberThatCannotBeStored_IsNoRefusal(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
	ev := w.alice.sealedWith(key, "$1", "later")
	restore := trigger(t, w.store, "INSERT", "message_read", `SELECT RAISE(ABORT, 'no room')`)
	_, err := w.crypto.Open(t.Context(), ev, bot)
	if err == nil || appservice.IsPermanent(err) || errors.Is(err, crypto.ErrCorrupt) || errors.Is(err, crypto.ErrNoKey) || errors.Is(err, crypto.ErrReplayed) {
		t.Errorf("got %v, want an error that passes", err)
	}
	restore()
	if opened, err := w.crypto.Open(t.Context(), ev, bot); err != nil || text(opened) != "later" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

func TestNew_AnotherPickleKey_IsRefused_AndNothingIsLost(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
	c, err := crypto.New(t.Context(), crypto.Options{Store: w.store, AS: w.as, PickleKey: []byte("another")})
	if !errors.Is(err, crypto.ErrPickleKey) {
		t.Errorf("got %v, want ErrPickleKey", err)
	}
	if err == nil {
		w.no(c.Close())
	} else if strings.Contains(err.Error(), "another\"") || strings.Contains(err.Error(), string(pickleKey)) {
		t.Errorf("the error tells the key: %v", err)
	}
	if c, err = crypto.New(t.Context(), crypto.Options{Store: w.store, AS: w.as}); err == nil {
		w.no(c.Close())
		t.Error("no pickle key was taken")
	}
	w.reopen()
	if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "still"), bot); err != nil || text(opened) != "still" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

func TestStore_KeysOfAnotherAccount_AreRefused_AndNothingIsLost(t *testing.T) {
	w, bot, room, h := prepared(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	device, err := w.as.Bot().EnsureDevice(t.Context())
	w.no(err)
	foreign, err := w.store.Foreign()
	w.no(err)
	swap := func() {
		t.Helper()
		storetest.Commit(t, w.store, func(tx *store.Tx) error { // the bot's row becomes the ghost's, and the other way round
			for _, step := range [][2]string{{string(bot), "x"}, {string(ghost), string(bot)}, {"x", string(ghost)}} {
				_, err := foreign.Exec(tx.Context(t.Context()), `UPDATE crypto_account SET account_id = $1 || '/' || $3 WHERE account_id LIKE $2 || '/%'`,
					step[1], step[0], string(device))
				if err != nil {
					return err
				}
			}
			return nil
		})
		w.reopen()
	}
	swap()
	key := w.roomKey(room)
	ev := h.encrypt(h.payload(key))
	if err := w.crypto.HandleKeys(t.Context(), ev); !errors.Is(err, crypto.ErrForeign) || appservice.IsPermanent(err) {
		t.Errorf("a to-device message: got %v, want ErrForeign, which somebody can mend", err)
	}
	_, err = w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("x")})
	if !errors.Is(err, crypto.ErrForeign) {
		t.Errorf("sealing: got %v, want ErrForeign", err)
	}
	swap()
	w.no(w.crypto.HandleKeys(t.Context(), ev))
}

// Every member of the room has the key. The store has one row for it.
func TestBad_KeyThatComesAgainForAnotherRoom_IsRefusedAndStaysWhereItWas(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	bob := newPerson(w, "bob")
	if _, err := bob.Join(t.Context(), string(room)); err != nil {
		t.Fatal(err)
	}
	w.alice.say(room, "one", ghost, bob.ID())
	w.settle()
	if _, err := w.crypto.Open(t.Context(), w.next(), ghost); err != nil {
		t.Fatal(err)
	}
	session, err := w.alice.olm.CryptoStore.GetOutboundGroupSession(t.Context(), room)
	w.no(err)
	device, err := bob.olm.GetOrFetchDevice(t.Context(), ghost, w.device(ghost))
	w.no(err)
	w.no(bob.olm.SendEncryptedToDevice(t.Context(), device, event.ToDeviceRoomKey, event.Content{Parsed: &event.RoomKeyEventContent{
		Algorithm: id.AlgorithmMegolmV1, RoomID: "!elsewhere:hs.test", SessionID: session.ID(), SessionKey: session.Internal.Key(),
	}}))
	w.settle()
	w.alice.say(room, "two", ghost, bob.ID())
	if opened, err := w.crypto.Open(t.Context(), w.next(), ghost); err != nil || text(opened) != "two" {
		t.Errorf("%v %v", opened, err)
	}
}
