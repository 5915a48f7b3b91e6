//go:build goolm

package crypto_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

// asked is what the homeserver of a person's devices was asked for since the last look.
type asked struct {
	claims, messages int
	given            map[string]int // how many messages for each device
}

// oneKey are signed devices of a person that all name one curve25519 key, of which the homeserver has one-time keys.
func (p *person) oneKey(names ...string) (look func() asked, remove func()) {
	p.w.t.Helper()
	devices, accounts := map[string]any{}, map[string]*olm.OlmAccount{}
	key := p.again().olm.GetAccount().IdentityKey()
	for _, name := range names {
		device := p.again()
		accounts[name] = device.olm.GetAccount()
		keys := device.own(func(keys *mautrix.DeviceKeys) {
			keys.DeviceID = id.DeviceID(name)
			keys.Keys = map[id.DeviceKeyID]string{
				id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, keys.DeviceID): key.String(),
				id.NewDeviceKeyID(id.KeyAlgorithmEd25519, keys.DeviceID):    accounts[name].SigningKey().String(),
			}
		})
		p.sign(keys)
		devices[name] = keys
	}
	var mu sync.Mutex
	now := asked{given: map[string]int{}}
	queries := p.answers(devices, func(fields) {})
	rest := p.w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.HasSuffix(r.URL.Path, "/keys/claim"):
			var claim mautrix.ReqClaimKeys
			_ = json.NewDecoder(r.Body).Decode(&claim)
			now.claims++
			keys := fields{}
			for name := range claim.OneTimeKeys[p.ID()] {
				oneTime := fields{"key": p.again().olm.GetAccount().IdentityKey()}
				signature, _ := accounts[string(name)].SignJSON(oneTime)
				oneTime["signatures"] = fields{string(p.ID()): fields{"ed25519:" + string(name): signature}}
				keys[string(name)] = fields{"signed_curve25519:AAAA": oneTime}
			}
			_ = json.NewEncoder(rw).Encode(fields{"one_time_keys": fields{string(p.ID()): keys}})
		case strings.Contains(r.URL.Path, "/sendToDevice/m.room.encrypted/"):
			var messages struct {
				Messages map[id.UserID]map[string]json.RawMessage `json:"messages"`
			}
			_ = json.NewDecoder(r.Body).Decode(&messages)
			now.messages++
			for name := range messages.Messages[p.ID()] {
				now.given[name]++
			}
			_, _ = rw.Write([]byte("{}"))
		default:
			return false
		}
		return true
	})
	return func() (out asked) {
			mu.Lock()
			defer mu.Unlock()
			out, now = now, asked{given: map[string]int{}}
			return out
		}, func() {
			rest()
			queries()
		}
}

func TestShare_ManyDevicesThatNameTheSameKey_CostOneClaimAndOneMessageForAll(t *testing.T) {
	w, bot, room, _, _ := members(t)
	var names []string
	for n := range 40 {
		names = append(names, fmt.Sprintf("D%02d", n))
	}
	look, remove := w.alice.oneKey(names...)
	defer remove()
	w.outdated(w.alice.ID())
	for round := range 3 {
		if round > 0 {
			w.changes(`DELETE FROM crypto_megolm_outbound_session`)
		}
		_, err := w.seal(bot, room, "x")
		w.no(err)
		now := look()
		if most := 2 * max(0, 1-round); now.claims > most || now.messages > 2 {
			t.Errorf("round %d costs %d requests for one-time keys and %d messages", round, now.claims, now.messages)
		}
		for _, name := range names {
			if now.given[name] != 1 {
				t.Errorf("round %d: %s was sent %d room keys", round, name, now.given[name])
			}
		}
	}
	if n := w.count(`SELECT COUNT(DISTINCT c.signing_key) FROM olm_claimed c JOIN crypto_olm_session s ON s.session_id = c.session AND s.account_id = c.account`); n != len(names) {
		t.Errorf("there are sessions with %d devices", n)
	}
}
