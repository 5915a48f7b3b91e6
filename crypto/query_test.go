//go:build goolm

package crypto_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// answers has the homeserver say these devices of the person, with cross-signing keys if there are any.
func (p *person) answers(devices map[string]any, change func(master fields)) (remove func()) {
	return p.answersAs(devices, func(answer fields) {
		if keys, ok := answer["master_keys"].(fields); ok {
			change(keys[string(p.ID())].(fields))
		}
	})
}

func (p *person) answersAs(devices map[string]any, change func(answer fields)) (remove func()) {
	user := p.ID()
	return p.w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") {
			return false
		}
		answer := fields{"device_keys": fields{string(user): devices}}
		if keys := p.olm.CrossSigningKeys; keys != nil {
			key := func(usage string, public id.Ed25519) fields {
				return fields{"user_id": user, "usage": []string{usage}, "keys": fields{"ed25519:" + public.String(): public}}
			}
			master, self := key("master", keys.MasterKey.PublicKey()), key("self_signing", keys.SelfSigningKey.PublicKey())
			signature, _ := keys.MasterKey.SignJSON(self)
			self["signatures"] = fields{string(user): fields{"ed25519:" + keys.MasterKey.PublicKey().String(): signature}}
			answer["master_keys"], answer["self_signing_keys"] = fields{string(user): master}, fields{string(user): self}
		}
		change(answer)
		_ = json.NewEncoder(rw).Encode(answer)
		return true
	})
}

// made is a sound device that somebody makes up, signed by its owner or not.
func (p *person) made(name string, signed bool, changes ...func(*mautrix.DeviceKeys)) *mautrix.DeviceKeys {
	keys := p.again().under(name, changes...)
	if signed {
		p.sign(keys)
	}
	return keys
}

// under is the person's device under another ID.
func (p *person) under(name string, changes ...func(*mautrix.DeviceKeys)) *mautrix.DeviceKeys {
	return p.own(func(keys *mautrix.DeviceKeys) {
		of := map[id.DeviceKeyID]string{}
		for key, value := range keys.Keys {
			algorithm, _ := key.Parse()
			of[id.NewDeviceKeyID(id.KeyAlgorithm(algorithm), id.DeviceID(name))] = value
		}
		keys.DeviceID, keys.Keys = id.DeviceID(name), of
		for _, change := range changes {
			change(keys)
		}
	})
}

// sign signs a device as its owner.
func (p *person) sign(keys *mautrix.DeviceKeys) {
	self := p.olm.CrossSigningKeys.SelfSigningKey
	signatures := keys.Signatures
	keys.Signatures = nil
	signature, err := self.SignJSON(keys)
	p.w.no(err)
	keys.Signatures = signatures
	keys.Signatures[p.ID()][id.NewKeyID(id.KeyAlgorithmEd25519, self.PublicKey().String())] = signature
}

func (w *world) count(query string, args ...any) (n int) {
	w.t.Helper()
	keys, err := w.store.Foreign()
	w.no(err)
	w.no(keys.QueryRow(w.t.Context(), query, args...).Scan(&n))
	return n
}

func TestDevices_MoreThanAnybodyHas_AreLeftOut_AndThoseThatAreSignedLast(t *testing.T) {
	w, bot, room, _, _ := members(t)
	devices := map[string]any{}
	for n := range crypto.MostDevices + 20 {
		devices[fmt.Sprintf("%04d", n)] = w.alice.made(fmt.Sprintf("%04d", n), n >= crypto.MostDevices+10)
	}
	defer w.alice.answers(devices, func(fields) {})()
	w.outdated(w.alice.ID())
	_, err := w.seal(bot, room, "x")
	w.no(err)
	known, err := w.crypto.Devices(t.Context(), bot, w.alice.ID())
	if err != nil || len(known) != crypto.MostDevices {
		t.Errorf("%d devices are known; %v", len(known), err)
	}
	for n := range devices {
		if _, there := known[id.DeviceID(n)]; !there && n >= fmt.Sprintf("%04d", crypto.MostDevices+10) {
			t.Errorf("the signed device %s is left out", n)
		}
	}
}

func TestDevices_MoreThanAnybodyHas_ThatOnlySeemToBeSigned_PushOutNoneThatIs(t *testing.T) {
	w, bot, room, _, _ := members(t)
	devices := map[string]any{"HONEST": w.alice.made("HONEST", true)}
	self := id.NewKeyID(id.KeyAlgorithmEd25519, w.alice.olm.CrossSigningKeys.SelfSigningKey.PublicKey().String())
	for n := range crypto.MostDevices {
		device := w.alice.made(fmt.Sprintf("A%04d", n), false)
		device.Signatures[w.alice.ID()][self] = strings.Repeat("A", 86)
		devices[string(device.DeviceID)] = device
	}
	defer w.alice.answers(devices, func(fields) {})()
	w.outdated(w.alice.ID())
	_, err := w.seal(bot, room, "x")
	w.no(err)
	if known, err := w.crypto.Devices(t.Context(), bot, w.alice.ID()); err != nil || len(known) != crypto.MostDevices || known["HONEST"] == nil {
		t.Errorf("%d devices are known, the signed one among them: %t; %v", len(known), known["HONEST"] != nil, err)
	}
}

func TestSignatures_MoreThanAKeyHas_AreLeftOut_AndTheOwnersLast(t *testing.T) {
	w, bot, room, _, _ := members(t)
	device := w.alice.made("MANY", true)
	for range 100 {
		device.Signatures[w.alice.ID()][id.NewKeyID(id.KeyAlgorithmEd25519, string(w.alice.again().olm.GetAccount().SigningKey()))] = strings.Repeat("A", 86)
	}
	signers := 0
	defer w.alice.answers(map[string]any{"MANY": device}, func(master fields) {
		of := fields{}
		for range 100 {
			signer := w.alice.again().olm.GetAccount()
			signature, _ := signer.SignJSON(fields{"user_id": master["user_id"], "usage": master["usage"], "keys": master["keys"]})
			of["ed25519:"+string(signer.SigningKey())] = signature
		}
		signers, master["signatures"] = len(of), fields{string(w.alice.ID()): of}
	})()
	w.outdated(w.alice.ID())
	_, err := w.seal(bot, room, "x")
	w.no(err)
	if known, err := w.crypto.Devices(t.Context(), bot, w.alice.ID()); err != nil || len(known) != 1 {
		t.Errorf("%v %v", known, err)
	}
	signed := w.count(`SELECT COUNT(*) FROM crypto_cross_signing_signatures WHERE signed_user_id = $1 AND signed_key = $2 AND signer_key = $3`, w.alice.ID(),
		device.Keys[id.NewDeviceKeyID(id.KeyAlgorithmEd25519, "MANY")], w.alice.olm.CrossSigningKeys.SelfSigningKey.PublicKey())
	of := w.count(`SELECT COUNT(*) FROM crypto_cross_signing_signatures WHERE signed_user_id = $1 AND signed_key = $2`, w.alice.ID(), w.alice.olm.CrossSigningKeys.MasterKey.PublicKey())
	if signed != 1 || of > crypto.MostSigned+1 || signers != 100 {
		t.Errorf("the owner's signature is there %d times, and the master key has %d of %d signatures", signed, of, signers)
	}
}

// encoding/json takes a name in another case for the name.
func TestSignatures_UnderANameThatIsReadAsTheirs_AreNotMore(t *testing.T) {
	for name, spell := range map[string]func(answer fields, user string, more fields){
		"with a long s": func(answer fields, user string, more fields) {
			answer["master_keys"].(fields)[user].(fields)["\u017fignatures"] = more
		},
		"in another section": func(answer fields, user string, more fields) {
			answer["master_keys"].(fields)[user].(fields)["signatures"] = more
			answer["Master_keys"] = answer["master_keys"]
			delete(answer, "master_keys")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, bot, room, _, _ := members(t)
			master := w.alice.olm.CrossSigningKeys.MasterKey.PublicKey()
			more := fields{}
			for range 40 {
				signer := w.alice.again().olm.GetAccount()
				signature, err := signer.SignJSON(fields{"user_id": w.alice.ID(), "usage": []string{"master"}, "keys": fields{"ed25519:" + master.String(): master}})
				w.no(err)
				more["ed25519:"+string(signer.SigningKey())] = signature
			}
			defer w.alice.answersAs(map[string]any{"X": w.alice.made("X", true)}, func(answer fields) {
				spell(answer, string(w.alice.ID()), fields{string(w.alice.ID()): more})
			})()
			w.outdated(w.alice.ID())
			_, err := w.seal(bot, room, "x")
			w.no(err)
			n := w.count(`SELECT COUNT(*) FROM crypto_cross_signing_signatures WHERE signed_user_id = $1 AND signed_key = $2`, w.alice.ID(), master)
			if read := name != "in another section"; read != (n > 0) || n > crypto.MostSigned { // sections go by their exact names
				t.Errorf("%d signatures of the master key are kept", n)
			}
		})
	}
}

func TestDevice_OfWhichTooMuchIsSaid_IsLeftOutAlone(t *testing.T) {
	bad := func(change func(*mautrix.DeviceKeys)) func(p *person) any {
		return func(p *person) any { return p.made("BAD", true, change) }
	}
	for name, said := range map[string]func(p *person) any{
		"signatures in another case": func(p *person) any {
			device := object(p.made("BAD", true))
			device["Signatures"], device["\u017fignatures"] = fields{}, device["signatures"]
			return device
		},
		"algorithms": bad(func(device *mautrix.DeviceKeys) {
			for n := range crypto.MostKeys {
				device.Algorithms = append(device.Algorithms, id.Algorithm(fmt.Sprint(n)))
			}
		}),
		"keys": bad(func(device *mautrix.DeviceKeys) {
			for n := range crypto.MostKeys {
				device.Keys[id.DeviceKeyID(fmt.Sprintf("ed25519:%d", n))] = strings.Repeat("A", 43)
			}
		}),
		"bytes": bad(func(device *mautrix.DeviceKeys) {
			device.Unsigned = map[string]any{"device_display_name": strings.Repeat("a", crypto.MostSaid)}
		}),
		"depth":                        bad(func(device *mautrix.DeviceKeys) { device.Unsigned = map[string]any{"x": deep(50)} }),
		"something else than its keys": func(*person) any { return fields{"keys": 5} },
		"nothing":                      func(*person) any { return 5 },
	} {
		t.Run(name, func(t *testing.T) {
			w, bot, room, _, _ := members(t)
			defer w.alice.answers(map[string]any{"GOOD": w.alice.made("GOOD", true), "BAD": said(w.alice)}, func(fields) {})()
			w.outdated(w.alice.ID())
			_, err := w.seal(bot, room, "x")
			w.no(err)
			if known, err := w.crypto.Devices(t.Context(), bot, w.alice.ID()); err != nil || len(known) != 1 || known["GOOD"] == nil {
				t.Errorf("%v are known; %v", known, err)
			}
		})
	}
}

func TestCrossSigningKey_ThatIsForTooMuchOrIsNotOne_IsLeftOut(t *testing.T) {
	for name, spoil := range map[string]func(master fields){
		"usages": func(master fields) { master["usage"] = []string{"master", "master", "master", "master"} },
		"keys": func(master fields) {
			for n := range 2 {
				master["keys"].(fields)[fmt.Sprint("ed25519:", n)] = strings.Repeat("A", 43)
			}
		},
		"bytes": func(master fields) { master["signatures"] = fields{strings.Repeat("@", crypto.MostSaid): fields{}} },
		"depth": func(master fields) { master["unsigned"] = deep(50) },
		"kind":  func(master fields) { master["usage"] = 5 },
	} {
		t.Run(name, func(t *testing.T) {
			w, bot, room, _, _ := members(t)
			defer w.alice.answers(map[string]any{"X": w.alice.made("X", true)}, spoil)()
			w.outdated(w.alice.ID())
			_, err := w.seal(bot, room, "x")
			w.no(err)
			usages := func(usage string) int {
				return w.count(`SELECT COUNT(*) FROM crypto_cross_signing_keys WHERE user_id = $1 AND usage = $2`, w.alice.ID(), usage)
			}
			if master, self := usages("master"), usages("self_signing"); master != 0 || self != 1 {
				t.Errorf("%d master keys are known, and %d self-signing keys", master, self)
			}
		})
	}
}

// outdated has the devices of a user asked for again.
func (w *world) outdated(user id.UserID) {
	w.t.Helper()
	storetest.Commit(w.t, w.store, func(tx *store.Tx) error { return tx.DevicesUnknown(string(user)) })
}

func TestDevices_ThatAreGoneOrMadeUp_FillTheDatabaseWithNoMoreThanSomeOfAUser(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		crypto.KeepGone(w.crypto, 5)
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		bob := newPerson(w, "bob")
		w.takes(w.hand(bob, bot), w.roomKey(room), nil)
		rows := func(table, column string) int {
			return w.count(`SELECT COUNT(*) FROM `+table+` WHERE `+column+` = $1`, w.alice.ID())
		}
		for round := range 4 { // another ten devices each time
			devices := map[string]any{}
			for n := range 10 {
				devices[fmt.Sprint(round, "-", n)] = w.alice.made(fmt.Sprint(round, "-", n), false)
			}
			remove := w.alice.answers(devices, func(fields) {})
			w.outdated(w.alice.ID())
			_, err := w.seal(bot, room, "x")
			w.no(err)
			remove()
		}
		if n, signed := rows("crypto_device", "user_id"), rows("crypto_cross_signing_signatures", "signed_user_id"); n != 15 || signed > 15 {
			t.Errorf("%d devices are known, and %d signatures", n, signed)
		}
		var last []string
		for n := range 20 { // and such as only a message names
			made := w.alice.again()
			h := w.hand(made, bot)
			p := h.payload(w.roomKey(room))
			name := fmt.Sprint("made-up-", n)
			p["sender_device_keys"] = made.keysAs(id.DeviceID(name))
			w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
			last = append(last, name)
		}
		if n := rows("crypto_device", "user_id"); n != 15 {
			t.Errorf("%d devices are known", n)
		}
		for _, name := range last[15:] {
			if w.count(`SELECT COUNT(*) FROM crypto_device WHERE user_id = $1 AND device_id = $2`, w.alice.ID(), name) != 1 {
				t.Errorf("%s is forgotten, whose key came last", name)
			}
		}
		if with, _ := w.sessions(bob.olm.GetAccount().IdentityKey()); with == 0 {
			t.Error("the session with Bob's device is gone")
		}
	})
}

func TestDevices_WithAnothersKeyThatAreLetGo_LeaveHisSessions(t *testing.T) {
	w, bot, room, _, _ := members(t)
	crypto.KeepGone(w.crypto, 5)
	bob := newPerson(w, "bobby") // whose devices nobody has asked for
	h := w.hand(bob, bot)
	unnamed := func(p fields) fields {
		delete(p, "sender_device_keys")
		return p
	}
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(unnamed(h.payload(w.roomKey(room))))))
	key := bob.olm.GetAccount().IdentityKey()
	as := w.alice.again().own(func(keys *mautrix.DeviceKeys) {
		keys.Keys[id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, keys.DeviceID)] = key.String()
	})
	for _, devices := range []map[string]any{{string(as.DeviceID): as}, {}} {
		remove := w.alice.answers(devices, func(fields) {})
		w.outdated(w.alice.ID())
		_, err := w.seal(bot, room, "x")
		w.no(err)
		remove()
	}
	named := func() int { return w.count(`SELECT COUNT(*) FROM crypto_device WHERE identity_key = $1`, key) }
	if named() != 1 {
		t.Fatal("she has no device with his key, and this shows nothing")
	}
	for n := range 6 { // newer ones
		made := w.alice.again()
		h := w.hand(made, bot)
		p := h.payload(w.roomKey(room))
		p["sender_device_keys"] = made.keysAs(id.DeviceID(fmt.Sprint("made-up-", n)))
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
	}
	if named() != 0 {
		t.Fatal("her device with his key is remembered, and this shows nothing")
	}
	w.reopen()
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(unnamed(h.payload(w.roomKey(room))))))
	if with, _ := w.sessions(key); with == 0 {
		t.Error("the session with Bob's device is gone")
	}
}

func TestSignatures_ThatMessagesBringOfOneDevice_TakeEachOthersPlace(t *testing.T) {
	w, bot, room, alice, _ := members(t)
	for range 10 {
		signer := w.alice.again().olm.GetAccount()
		p := alice.payload(w.roomKey(room))
		keys := deviceKeys(p)
		bare := object(keys)
		delete(bare, "signatures")
		signature, err := signer.SignJSON(bare)
		w.no(err)
		keys["signatures"].(fields)[string(w.alice.ID())].(fields)["ed25519:"+string(signer.SigningKey())] = signature
		w.no(w.crypto.HandleKeys(t.Context(), alice.encrypt(p)))
	}
	n := w.count(`SELECT COUNT(*) FROM crypto_cross_signing_signatures WHERE signed_user_id = $1 AND signed_key = $2`, w.alice.ID(), w.alice.olm.GetAccount().SigningKey())
	if n < 2 || n > 4 {
		t.Errorf("%d signatures of the device are kept", n)
	}
	key := w.roomKey(room)
	w.takes(alice, key, nil)
	w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
}

// A server answers for users of whom it was not asked, as a homeserver that passes on all it is told would let it.
func TestDevices_OfUsersWhomNobodyAskedFor_AreLeftOut(t *testing.T) {
	w, bot, room, _, _ := members(t)
	bob := newPerson(w, "robert")
	theirs := bob.made("MADEUP", false)
	own := w.keysOf(w.alice.ID()).DeviceKeys[w.alice.ID()][w.alice.DeviceID()]
	public := bob.olm.GetAccount().SigningKey()
	defer w.alice.answersAs(map[string]any{string(w.alice.DeviceID()): own}, func(answer fields) {
		answer["device_keys"].(fields)[string(bob.ID())] = fields{"MADEUP": theirs}
		for section, usage := range map[string]string{"master_keys": "master", "self_signing_keys": "self_signing", "user_signing_keys": "user_signing"} {
			if answer[section] == nil {
				answer[section] = fields{}
			}
			answer[section].(fields)[string(bob.ID())] = fields{"user_id": bob.ID(), "usage": []string{usage}, "keys": fields{"ed25519:" + public.String(): public}}
		}
	})()
	w.outdated(w.alice.ID())
	_, err := w.seal(bot, room, "x")
	w.no(err)
	for _, table := range []string{"crypto_device", "crypto_cross_signing_keys", "crypto_tracked_user"} {
		if n := w.count(`SELECT COUNT(*) FROM `+table+` WHERE user_id = $1`, bob.ID()); n != 0 {
			t.Errorf("%s has %d rows of him", table, n)
		}
		if n := w.count(`SELECT COUNT(*) FROM `+table+` WHERE user_id = $1`, w.alice.ID()); n == 0 {
			t.Errorf("%s has nothing of Alice", table)
		}
	}
}
