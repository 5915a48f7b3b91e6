//go:build goolm

package crypto_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// onBoth runs a test over either database: PostgreSQL takes less.
func onBoth(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("SQLite", func(t *testing.T) { test(t, newWorld(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, newWorldOn(t, storetest.Open(t, storetest.Postgres(t), store.Options{}))) })
}

const nul = "a\x00b"

// What one database does not take would be tried for a day, in front of everybody's room keys.
func TestShape_ToDeviceMessageThatCannotBeStored_IsRefusedAtOnce_AndTheNextIsRead(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		h := w.hand(w.alice, bot)
		plain := func(typ string, content fields) *appservice.Event {
			raw, _ := json.Marshal(fields{"type": typ, "sender": w.alice.ID(), "to_user_id": bot, "to_device_id": h.device.DeviceID, "content": content})
			return &appservice.Event{Kind: store.KindToDevice, Type: typ, Sender: w.alice.ID(), ToUserID: bot, ToDeviceID: h.device.DeviceID, Raw: raw}
		}
		cases := map[string]*appservice.Event{}
		for name, change := range map[string]func(c fields){
			"long session":    func(c fields) { c["session_id"] = strings.Repeat("A", 50) },
			"session of NULs": func(c fields) { c["session_id"] = strings.Repeat("\x00", 43) },
			"long sender key": func(c fields) { c["sender_key"] = strings.Repeat("A", 60) },
			"NUL in room":     func(c fields) { c["room_id"] = "!" + nul },
			"NUL in code":     func(c fields) { c["code"] = nul },
			"NUL in reason":   func(c fields) { c["reason"] = nul },
			"endless reason":  func(c fields) { c["reason"] = strings.Repeat("x", 60_000) },
		} {
			c := fields{"algorithm": id.AlgorithmMegolmV1, "session_id": strings.Repeat("A", 43), "sender_key": strings.Repeat("A", 43), "room_id": room, "code": "m.unverified"}
			change(c)
			cases["withheld: "+name] = plain("m.room_key.withheld", c)
		}
		for name, key := range map[string]string{"NUL": nul, "long": strings.Repeat("A", 60), "line break": strings.Repeat("A", 42) + "\n"} {
			cases["sender_key: "+name] = h.message(fields{"algorithm": id.AlgorithmOlmV1, "sender_key": key,
				"ciphertext": fields{string(h.device.IdentityKey): fields{"type": 1, "body": "AwogAAAA"}}})
		}
		payloads := map[string]func(p fields){
			"room with NUL":      func(p fields) { p["content"].(fields)["room_id"] = "!" + nul },
			"endless room":       func(p fields) { p["content"].(fields)["room_id"] = "!" + strings.Repeat("x", 9000) },
			"too many messages":  func(p fields) { p["content"].(fields)["com.beeper.max_messages"] = 1 << 40 },
			"NUL in signing key": func(p fields) { p["keys"] = fields{"ed25519": nul}; delete(p, "sender_device_keys") },
			"long signing key": func(p fields) {
				p["keys"] = fields{"ed25519": strings.Repeat("A", 60)}
				delete(p, "sender_device_keys")
			},
			"device's ID with NUL": func(p fields) { p["sender_device_keys"] = w.alice.keysAs(nul) },
			"device's ID is long":  func(p fields) { p["sender_device_keys"] = w.alice.keysAs(id.DeviceID(strings.Repeat("x", 9000))) },
			"forwarded, NUL in one": func(p fields) {
				w.alice.forwards(p)
				p["content"].(fields)["forwarding_curve25519_key_chain"] = []string{nul}
			},
			"forwarded, backslash": func(p fields) {
				w.alice.forwards(p)
				p["content"].(fields)["forwarding_curve25519_key_chain"] = []string{`\x`}
			},
			"forwarded, long chain": func(p fields) {
				w.alice.forwards(p)
				p["content"].(fields)["forwarding_curve25519_key_chain"] = make([]string, 1000)
			},
			"forwarded, room with NUL": func(p fields) { w.alice.forwards(p); p["content"].(fields)["room_id"] = "!" + nul },
		}
		for name, change := range payloads {
			p := h.payload(w.roomKey(room))
			change(p)
			cases["room key: "+name] = h.encrypt(p)
		}
		for name, ev := range cases {
			if err := w.crypto.HandleKeys(t.Context(), ev); !appservice.IsPermanent(err) || !errors.Is(err, crypto.ErrCorrupt) || store.IsData(err) {
				t.Errorf("%s: got %.300v, want ErrCorrupt before the database is asked", name, err)
			}
		}
		key := w.roomKey(room)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
		if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$good", "good"), bot); err != nil || text(opened) != "good" {
			t.Errorf("%q, %v", text(opened), err)
		}
	})
}

// A signature may be a good one and yet be written with line breaks, which base64 decoders skip, at any length.
func TestShape_SignatureThatCannotBeStored_IsLeftOut_AndItsKeyIsTaken(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		w.alice.signs()
		h := w.hand(w.alice, bot)
		key := w.roomKey(room)
		p := h.payload(key)
		signatures := deviceKeys(p)["signatures"].(fields)[string(w.alice.ID())].(fields)
		broken := 0
		for name, signature := range signatures {
			if name != "ed25519:"+string(w.alice.DeviceID()) {
				signatures[name] = signature.(string) + strings.Repeat("\n", 100)
				broken++
			}
		}
		if broken == 0 {
			t.Fatal("no cross-signing key has signed")
		}
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
		if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "one"), bot); err != nil || text(opened) != "one" {
			t.Errorf("%q, %v", text(opened), err)
		}
	})
}

func TestShape_EventThatCannotBeStored_IsRefusedAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		h := w.hand(w.alice, bot)
		key := w.roomKey(room)
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
		for name, session := range map[string]string{"NULs": strings.Repeat("\x00", 43), "long": strings.Repeat("B", 50), "no base64": strings.Repeat("!", 43)} {
			ev := w.alice.encryptedEvent(room, "$"+name, fields{"algorithm": id.AlgorithmMegolmV1, "session_id": session, "ciphertext": strings.Repeat("A", 200)})
			if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrCorrupt) || store.IsData(err) {
				t.Errorf("session of %s: got %v, want ErrCorrupt", name, err)
			}
			if err := w.crypto.RequestKey(t.Context(), ev, bot); !appservice.IsPermanent(err) {
				t.Errorf("the key of session of %s is asked for: %v", name, err)
			}
		}
		far := w.alice.encryptedEvent(room, "$far", fields{"algorithm": id.AlgorithmMegolmV1, "session_id": key.ID(), "ciphertext": megolmFrom(math.MaxInt32 + 1)})
		if _, err := w.crypto.Open(t.Context(), far, bot); !errors.Is(err, crypto.ErrCorrupt) {
			t.Errorf("message 2³¹ of a session: got %v, want ErrCorrupt", err)
		}
	})
}

// refusing has PostgreSQL refuse the values of new rows of a table, until what it gives is called.
func refusing(t *testing.T, s *store.Store, table string) (no func()) {
	t.Helper()
	run := func(statements ...string) {
		t.Helper()
		db, err := s.Foreign()
		if err != nil {
			t.Fatal(err)
		}
		storetest.Commit(t, s, func(tx *store.Tx) error {
			for _, statement := range statements {
				if _, err := db.Exec(tx.Context(t.Context()), statement); err != nil {
					return err
				}
			}
			return nil
		})
	}
	run(`CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'not this' USING ERRCODE = '22021'; END $$ LANGUAGE plpgsql`,
		`CREATE TRIGGER refusing BEFORE INSERT ON `+table+` FOR EACH ROW EXECUTE FUNCTION refuse()`)
	return func() { run(`DROP TRIGGER refusing ON `+table, `DROP FUNCTION refuse()`) }
}

// What nobody has thought of is no reason to try for ever either.
func TestShape_WhatPostgreSQLRefusesAllTheSame_IsPermanent(t *testing.T) {
	w := newWorldOn(t, storetest.Open(t, storetest.Postgres(t), store.Options{}))
	w.with(func(*crypto.Options) {})
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	room := w.room(bot)
	h := w.hand(w.alice, bot)
	key := w.roomKey(room)
	ev := h.encrypt(h.payload(key))
	h2 := *ev
	h2.ToDeviceID = id.DeviceID(nul) // homeservers send none such
	if err := w.crypto.HandleKeys(t.Context(), &h2); !appservice.IsPermanent(err) || !store.IsData(err) {
		t.Errorf("a to-device message: got %v, want a permanent error of the database", err)
	}
	w.no(w.crypto.HandleKeys(t.Context(), ev))
	no := refusing(t, w.store, "message_read")
	one := w.alice.sealedWith(key, "$1", "one")
	if _, err := w.crypto.Open(t.Context(), one, bot); !errors.Is(err, crypto.ErrCorrupt) || !store.IsData(err) {
		t.Errorf("an event: got %v, want ErrCorrupt and the error of the database", err)
	}
	no()
	if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$"+nul, "x"), bot); err != nil || text(opened) != "x" {
		t.Errorf("an event with an odd ID: %q, %v", text(opened), err)
	}
	if opened, err := w.crypto.Open(t.Context(), one, bot); err != nil || text(opened) != "one" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

// Whoever joins a room has the bridge read what he calls his devices. He must not keep it from speaking there by that.
func TestShape_DeviceThatIsNone_IsLeftOut_AndAllOthersAreWrittenTo(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		_, err := w.seal(bot, room, "before")
		w.no(err)
		for name, spoil := range map[string]func(keys *mautrix.DeviceKeys){
			"long": func(keys *mautrix.DeviceKeys) {
				keys.Keys[id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, keys.DeviceID)] = strings.Repeat("A", 60)
			},
			"none": func(keys *mautrix.DeviceKeys) {
				keys.Keys[id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, keys.DeviceID)] = nul
			},
		} {
			mallory := newPerson(w, "mallory-"+name)
			mallory.publishes(spoil)
			_, err = mallory.Join(t.Context(), string(room))
			w.no(err)
		}
		w.settle()
		sealed, err := w.seal(bot, room, "after")
		w.no(err)
		w.alice.sync(room)
		if got, err := w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, sealed.SessionID); err != nil || got == nil {
			t.Errorf("alice has no key: %v", err)
		}
	})
}

// own are the device's keys, signed by it.
func (p *person) own(change func(keys *mautrix.DeviceKeys)) *mautrix.DeviceKeys {
	p.w.t.Helper()
	account, device := p.olm.GetAccount(), p.DeviceID()
	keys := &mautrix.DeviceKeys{UserID: p.ID(), DeviceID: device, Algorithms: []id.Algorithm{id.AlgorithmMegolmV1, id.AlgorithmOlmV1},
		Keys: map[id.DeviceKeyID]string{
			id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, device): account.IdentityKey().String(),
			id.NewDeviceKeyID(id.KeyAlgorithmEd25519, device):    account.SigningKey().String(),
		}}
	change(keys)
	signature, err := account.SignJSON(keys)
	p.w.no(err)
	keys.Signatures = map[id.UserID]map[id.KeyID]string{p.ID(): {id.NewKeyID(id.KeyAlgorithmEd25519, string(keys.DeviceID)): signature}}
	return keys
}

// publishes gives the homeserver other keys of the device.
func (p *person) publishes(change func(keys *mautrix.DeviceKeys)) {
	p.w.t.Helper()
	_, err := p.client.UploadKeys(p.w.t.Context(), &mautrix.ReqUploadKeys{DeviceKeys: p.own(change)})
	p.w.no(err)
}

// keysAs are sound keys of a device of that name.
func (p *person) keysAs(device id.DeviceID) fields {
	return object(p.own(func(keys *mautrix.DeviceKeys) {
		keys.DeviceID = device
		keys.Keys = map[id.DeviceKeyID]string{
			id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, device): p.olm.GetAccount().IdentityKey().String(),
			id.NewDeviceKeyID(id.KeyAlgorithmEd25519, device):    p.olm.GetAccount().SigningKey().String(),
		}
	}))
}

// forwards makes the payload of a room key one of the same key, forwarded by who has made it.
func (p *person) forwards(payload fields) {
	p.w.t.Helper()
	content := payload["content"].(fields)
	session, err := olm.NewInboundGroupSession(p.olm.GetAccount().IdentityKey(), p.olm.GetAccount().SigningKey(), content["room_id"].(id.RoomID),
		content["session_key"].(string), 0, 0, nil, false)
	p.w.no(err)
	exported, err := session.Internal.Export(session.Internal.FirstKnownIndex())
	p.w.no(err)
	payload["type"] = event.ToDeviceForwardedRoomKey.Type
	content["session_key"] = string(exported)
	content["sender_key"], content["sender_claimed_ed25519_key"] = p.olm.GetAccount().IdentityKey(), p.olm.GetAccount().SigningKey()
	content["forwarding_curve25519_key_chain"] = []string{}
}

// megolmFrom is what looks like a message of that number: version 3, the number as a varint, and the rest.
func megolmFrom(index uint64) string {
	raw := []byte{3, 8}
	for ; index >= 128; index >>= 7 {
		raw = append(raw, byte(index)|128)
	}
	raw = append(raw, byte(index), 0x12, 16)
	raw = append(raw, make([]byte, 16+8+64)...)
	return base64.RawStdEncoding.EncodeToString(raw)
}
