package bridgetest_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"

	"maunium.net/go/mautrix/crypto/canonicaljson"
)

// signer is a key that signs objects.
type signer struct {
	key    ed25519.PrivateKey
	public string
}

func newSigner(name string) signer {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return signer{key, base64.RawStdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}
}

// sign adds a signature of a user to an object.
func (s signer) sign(w *world, object map[string]any, user, keyName string) map[string]any {
	w.Helper()
	bare := make(map[string]any)
	for key, value := range object {
		if key != "signatures" && key != "unsigned" {
			bare[key] = value
		}
	}
	text := must(canonicaljson.Marshal(bare))(w)
	object["signatures"] = map[string]any{user: map[string]any{"ed25519:" + keyName: base64.RawStdEncoding.EncodeToString(ed25519.Sign(s.key, text))}}
	return object
}

func crossKey(user, usage string, of signer) map[string]any {
	return map[string]any{"user_id": user, "usage": []string{usage}, "keys": map[string]any{"ed25519:" + of.public: of.public}}
}

func text(value any) string {
	data, _ := json.Marshal(value)
	return string(data)
}

func TestCrossSigning_OfAPerson_NeedsThePasswordForOtherKeysAlone(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	upload := func(status int, master signer, auth string) {
		t.Helper()
		got, answer := w.request(alice.Token(), "POST", "keys/device_signing/upload", `{"master_key":`+text(crossKey("@alice:hs.test", "master", master))+auth+`}`)
		if got != status {
			t.Errorf("%d %v, want %d", got, answer, status)
		}
	}
	first, other := newSigner("first"), newSigner("other")
	upload(200, first, "")
	upload(200, first, "")
	upload(401, other, "")
	upload(401, other, `,"auth":{"type":"m.login.password","password":"wrong"}`)
	upload(200, other, `,"auth":{"type":"m.login.password","password":"alice"}`)
}

func TestSignatures_AreCheckedAndShownToWhomTheyConcern(t *testing.T) {
	w := start(t)
	users := map[string]map[string]signer{}
	for _, name := range []string{"alice", "bob", "carol"} {
		id, token := "@"+name+":hs.test", w.hs.User(name).Token()
		keys := map[string]signer{"device": newSigner(name + " device"), "master": newSigner(name + " master"), "self": newSigner(name + " self"), "user": newSigner(name + " user")}
		users[name] = keys
		device := string(w.hs.User(name).DeviceID())
		status, answer := w.request(token, "POST", "keys/upload", `{"device_keys":`+text(keys["device"].sign(w, map[string]any{
			"user_id": id, "device_id": device, "algorithms": []string{}, "keys": map[string]any{"ed25519:" + device: keys["device"].public},
		}, id, device))+`}`)
		w.is([]any{status, answer["errcode"]}, []any{200, nil})
		status, answer = w.request(token, "POST", "keys/device_signing/upload", text(map[string]any{
			"master_key":       crossKey(id, "master", keys["master"]),
			"self_signing_key": keys["master"].sign(w, crossKey(id, "self_signing", keys["self"]), id, keys["master"].public),
			"user_signing_key": keys["master"].sign(w, crossKey(id, "user_signing", keys["user"]), id, keys["master"].public),
		}))
		w.is([]any{status, answer["errcode"]}, []any{200, nil})
	}
	device := string(w.hs.User("alice").DeviceID())
	own := func() map[string]any {
		return map[string]any{"user_id": "@alice:hs.test", "device_id": device, "algorithms": []string{}, "keys": map[string]any{"ed25519:" + device: users["alice"]["device"].public}}
	}
	signs := func(by, user, name string, object map[string]any) string {
		t.Helper()
		status, answer := w.request(w.hs.User(by).Token(), "POST", "keys/signatures/upload", text(map[string]any{user: map[string]any{name: object}}))
		w.is(status, 200)
		failures, _ := answer["failures"].(map[string]any)
		of, _ := failures[user].(map[string]any)
		failure, _ := of[name].(map[string]any)
		code, _ := failure["errcode"].(string)
		return code
	}
	self := users["alice"]["self"]
	w.is(signs("alice", "@alice:hs.test", device, newSigner("somebody").sign(w, own(), "@alice:hs.test", self.public)), "M_INVALID_SIGNATURE")
	w.is(signs("alice", "@alice:hs.test", "NOSUCH", self.sign(w, own(), "@alice:hs.test", self.public)), "M_NOT_FOUND")
	changed := own()
	changed["algorithms"] = []string{"another"}
	w.is(signs("alice", "@alice:hs.test", device, self.sign(w, changed, "@alice:hs.test", self.public)), "M_UNKNOWN")
	w.is(signs("bob", "@alice:hs.test", device, users["bob"]["user"].sign(w, own(), "@bob:hs.test", users["bob"]["user"].public)), "M_NOT_FOUND")
	w.is(signs("alice", "@alice:hs.test", device, self.sign(w, own(), "@alice:hs.test", self.public)), "")
	master := users["alice"]["master"]
	w.is(signs("bob", "@alice:hs.test", master.public, users["bob"]["user"].sign(w, crossKey("@alice:hs.test", "master", master), "@bob:hs.test", users["bob"]["user"].public)), "")
	w.is(signs("alice", "@alice:hs.test", master.public, users["alice"]["device"].sign(w, crossKey("@alice:hs.test", "master", master), "@alice:hs.test", device)), "")

	seen := func(by string) (device1, master1 int) {
		t.Helper()
		_, answer := w.request(w.hs.User(by).Token(), "POST", "keys/query", `{"device_keys":{"@alice:hs.test":[]}}`)
		data, _ := json.Marshal(answer)
		var of struct {
			Devices map[string]map[string]struct {
				Signatures map[string]map[string]string
			} `json:"device_keys"`
			Masters map[string]struct{ Signatures map[string]map[string]string } `json:"master_keys"`
		}
		if err := json.Unmarshal(data, &of); err != nil {
			t.Fatal(err)
		}
		count := func(signatures map[string]map[string]string) (n int) {
			for _, of := range signatures {
				n += len(of)
			}
			return n
		}
		return count(of.Devices["@alice:hs.test"][device].Signatures), count(of.Masters["@alice:hs.test"].Signatures)
	}
	for by, want := range map[string][2]int{"alice": {2, 1}, "bob": {2, 2}, "carol": {2, 1}} {
		if d, m := seen(by); d != want[0] || m != want[1] {
			t.Errorf("%s sees %d signatures of the device and %d of the master key, want %v", by, d, m, want)
		}
	}
}
