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
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// cut is what is left of an answer about one user.
func cut(t *testing.T, user id.UserID, answer fields) (left struct {
	Devices map[id.UserID]map[id.DeviceID]*mautrix.DeviceKeys `json:"device_keys"`
	Master  map[id.UserID]*mautrix.CrossSigningKeys           `json:"master_keys"`
}) {
	t.Helper()
	body, err := json.Marshal(answer)
	if err == nil {
		body, err = crypto.CutQueried([]id.UserID{user, "@other:x"}, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &left)
	}
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func publicKey(n int) string { return fmt.Sprintf("%043d", n) }

// signed are signatures by so many keys.
func signed(many int) fields {
	by := fields{}
	for n := range many {
		by["ed25519:"+publicKey(n)] = strings.Repeat("A", 86)
	}
	return by
}

func TestQuery_AnswerThatIsARefusalOrNoAnswer_SaysNothingOfAnybody(t *testing.T) {
	w, bot, room, _, _ := members(t)
	defer w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") {
			return false
		}
		rw.WriteHeader(http.StatusForbidden)
		_, _ = rw.Write([]byte(`{"errcode":"M_FORBIDDEN","error":"no"}`))
		return true
	})()
	w.outdated(w.alice.ID())
	if _, err := w.seal(bot, room, "x"); !errors.Is(err, mautrix.MForbidden) {
		t.Errorf("the homeserver says M_FORBIDDEN: %v", err)
	}
	for _, body := range []string{"[]", "", `{"device_keys":[]}`, "<html>", "null", `{"device_keys":{"@a:x":{}}`, `{"device_keys":{"@a:x":`, `{"device_keys" {}}`, `{"device_keys":}`, `{"a":"\`, `{5:{}}`} {
		if left, err := crypto.CutQueried(nil, []byte(body)); err == nil {
			t.Errorf("%q is an answer: %q", body, left)
		}
	}
}

func TestQuery_UserOfWhomNothingCanBeRead_IsLeftOutAlone(t *testing.T) {
	left := cut(t, "@a:x", fields{"device_keys": fields{"@a:x": 5, "@other:x": fields{"D": fields{"user_id": "@other:x", "device_id": "D"}}}})
	if _, there := left.Devices["@a:x"]; there || left.Devices["@other:x"]["D"] == nil {
		t.Errorf("%v", left.Devices)
	}
}

// Signatures are left out only after all was read.
func TestQuery_LongBeforeSignaturesAreLeftOut_IsLeftOutItself(t *testing.T) {
	for many, want := range map[int]bool{300: true, 1000: false} {
		left := cut(t, "@a:x", fields{
			"device_keys": fields{"@a:x": fields{"D": fields{"user_id": "@a:x", "device_id": "D", "signatures": fields{"@a:x": signed(many)}}}},
			"master_keys": fields{"@a:x": fields{"user_id": "@a:x", "usage": []string{"master"}, "keys": fields{"ed25519:M": "M"}, "signatures": fields{"@a:x": signed(many)}}},
		})
		if device, master := left.Devices["@a:x"]["D"] != nil, left.Master["@a:x"] != nil; device != want || master != want {
			t.Errorf("with %d signatures: the device %t, the master key %t, want %t", many, device, master, want)
		}
	}
}

// Which signatures are left hangs on chance where more count than are left: often enough it would show.
func TestQuery_SignaturesThatAreLeft_AreTheDevicesOwnAndThoseOfKeysThatAreOne(t *testing.T) {
	own := func(by fields) fields {
		by["ed25519:D"] = "own"
		return by
	}
	for range 30 {
		left := cut(t, "@a:x", fields{"device_keys": fields{"@a:x": fields{"D": fields{"user_id": "@a:x", "device_id": "D", "signatures": fields{"@a:x": own(signed(50))}}}}})
		if left.Devices["@a:x"]["D"].Signatures["@a:x"]["ed25519:D"] != "own" {
			t.Fatal("a user without cross-signing keys: the device's own signature is left out")
		}
		keys, by := fields{}, own(signed(50))
		by["ed25519:S"] = "owner"
		all := fields{"@a:x": by}
		for n := range 50 {
			keys["ed25519:"+publicKey(n)] = publicKey(n)
			all[fmt.Sprintf("@eve%d:x", n)] = fields{"ed25519:D": "by a device of the same name", "ed25519:S": "by a key of the same name"}
		}
		left = cut(t, "@a:x", fields{
			"device_keys":       fields{"@a:x": fields{"D": fields{"user_id": "@a:x", "device_id": "D", "signatures": all}}},
			"master_keys":       fields{"@a:x": fields{"user_id": "@a:x", "usage": []string{"master"}, "keys": keys}},
			"self_signing_keys": fields{"@a:x": fields{"user_id": "@a:x", "usage": []string{"self_signing"}, "keys": fields{"ed25519:S": "S"}}},
		})
		if of := left.Devices["@a:x"]["D"].Signatures["@a:x"]; of["ed25519:D"] != "own" || of["ed25519:S"] != "owner" {
			t.Fatalf("a master key that is fifty: %v", of)
		}
	}
}

// The check of each costs more than reading it.
func TestQuery_DevicesThatSeemToBeSigned_AreCheckedUpToABound(t *testing.T) {
	w, _, _, _, _ := members(t)
	user, self := w.alice.ID(), w.alice.olm.CrossSigningKeys.SelfSigningKey.PublicKey()
	name := "ed25519:" + self.String()
	for before, want := range map[int]bool{crypto.MostChecked - 1: true, crypto.MostChecked: false} {
		devices := fields{"ZZ": w.alice.made("ZZ", true)}
		for n := range before {
			devices[fmt.Sprintf("A%04d", n)] = fields{"user_id": user, "signatures": fields{string(user): fields{name: "no"}}}
		}
		left := cut(t, user, fields{
			"device_keys":       fields{string(user): devices},
			"self_signing_keys": fields{string(user): fields{"user_id": user, "usage": []string{"self_signing"}, "keys": fields{name: self}}},
		})
		if got := left.Devices[user]["ZZ"] != nil; got != want || len(left.Devices[user]) != crypto.MostDevices {
			t.Errorf("behind %d that are not signed: %t, want %t; %d devices are left", before, got, want, len(left.Devices[user]))
		}
	}
}
