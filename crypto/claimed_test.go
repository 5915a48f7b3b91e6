//go:build goolm

package crypto_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/crypto"
)

// claimedAs has the homeserver answer claims with one-time keys by the device's account, which says what it likes of them.
func (p *person) claimedAs(answer func() fields) (remove func()) {
	return p.w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/keys/claim") {
			_ = json.NewEncoder(rw).Encode(fields{"one_time_keys": answer()})
			return true
		}
		return false
	})
}

// oneTime is a one-time key of the person's device as an answer has it.
func (p *person) oneTime(key any) fields {
	oneTime := fields{"key": key}
	signature, _ := p.olm.GetAccount().SignJSON(oneTime)
	oneTime["signatures"] = fields{string(p.ID()): fields{"ed25519:" + string(p.DeviceID()): signature}}
	return fields{"signed_curve25519:AAAA": oneTime}
}

// The server of a user answers for his devices, and may say more than it was asked.
func TestShare_OneTimeKeysOfDevicesThatNobodyAskedFor_AreLeftOut(t *testing.T) {
	w, bot, room, _, _ := members(t)
	key := w.alice.oneTime(w.alice.again().olm.GetAccount().IdentityKey())
	defer w.alice.claimedAs(func() fields {
		return fields{string(w.alice.ID()): fields{"UNASKED": key, string(w.alice.DeviceID()): key}, "@nobody:hs.test": fields{"UNASKED": key}}
	})()
	_, err := w.seal(bot, room, "x")
	w.no(err)
	if with, all := w.sessions(w.alice.olm.GetAccount().IdentityKey()); with != 1 || all != 1 {
		t.Errorf("of %d sessions %d are with her device", all, with)
	}
}

func TestShare_OneTimeKeysThatAreNone_KeepNobodyElseFromBeingWrittenTo(t *testing.T) {
	w, bot, room, _, other := members(t)
	crypto.GiveAgainAfter(w.crypto, 0) // so that she is asked each time
	bob := other.p
	_, err := bob.Join(t.Context(), string(room))
	w.no(err)
	w.settle()
	for name, said := range map[string]any{
		"empty": w.alice.oneTime(""), "short": w.alice.oneTime("AAAA"), "long": w.alice.oneTime(strings.Repeat("A", 86)), "zero": w.alice.oneTime(strings.Repeat("A", 43)),
		"no text": w.alice.oneTime(5), "no base64": w.alice.oneTime(strings.Repeat("!", 43)), "nothing": fields{}, "no keys": 5, "null": nil,
	} {
		remove := w.alice.claimedAs(func() fields {
			return fields{string(w.alice.ID()): fields{string(w.alice.DeviceID()): said}, string(bob.ID()): fields{string(bob.DeviceID()): bob.oneTime(w.alice.again().olm.GetAccount().IdentityKey())}}
		})
		w.changes(`DELETE FROM crypto_megolm_outbound_session`)
		w.changes(`DELETE FROM crypto_olm_session`)
		if _, err := w.seal(bot, room, "x"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if with, all := w.sessions(bob.olm.GetAccount().IdentityKey()); with != 1 || all != 1 {
			t.Errorf("%s: of %d sessions %d are with Bob", name, all, with)
		}
		remove()
	}
	defer w.alice.claimedAs(func() fields { return fields{string(w.alice.ID()): 5} })()
	w.changes(`DELETE FROM crypto_megolm_outbound_session`)
	w.changes(`DELETE FROM crypto_olm_session`)
	_, err = w.seal(bot, room, "x")
	w.no(err)
}

// One that mautrix cannot use would hide the one that it can, or be the one that takes long to check.
func TestShare_OneTimeKeysThatAreTooMany_TooLongOrOfAnotherKind_AreLeftOutOneByOne(t *testing.T) {
	w, bot, room, _, _ := members(t)
	crypto.GiveAgainAfter(w.crypto, 0) // so that she is asked each time
	user, device := string(w.alice.ID()), string(w.alice.DeviceID())
	good := w.alice.oneTime(w.alice.again().olm.GetAccount().IdentityKey())["signed_curve25519:AAAA"]
	own := w.alice.olm.GetAccount().IdentityKey()
	long, sunk := w.alice.oneTime(own)["signed_curve25519:AAAA"].(fields), w.alice.oneTime(own)["signed_curve25519:AAAA"].(fields)
	long["unsigned"], sunk["unsigned"] = fields{"x": strings.Repeat("x", crypto.MostSaid)}, fields{"x": deep(50)}
	for name, bad := range map[string]fields{
		"another kind": {"curve25519:A": good, "ed25519:A": good, "signed_curve25519": good},
		"long":         {"signed_curve25519:A": long}, "deep": {"signed_curve25519:A": sunk}, "a number": {"signed_curve25519:A": 5}, "nothing": {"signed_curve25519:A": nil},
		"no secret": w.alice.oneTime("AQ" + strings.Repeat("A", 41)), "long name": {"signed_curve25519:" + strings.Repeat("A", 300): good},
	} {
		for _, more := range []bool{true, false} {
			said := fields{}
			maps.Copy(said, bad)
			if more {
				said["signed_curve25519:Z"] = good
			}
			remove := w.alice.claimedAs(func() fields { return fields{user: fields{device: said}} })
			w.changes(`DELETE FROM crypto_megolm_outbound_session`)
			w.changes(`DELETE FROM crypto_olm_session`)
			_, err := w.seal(bot, room, "x")
			w.no(err)
			remove()
			if with, all := w.sessions(own); with != all || (with == 1) != more {
				t.Errorf("%s: of %d sessions %d are with alice, who has a good key: %t", name, all, with, more)
			}
		}
	}
}
