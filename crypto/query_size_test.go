//go:build goolm

package crypto_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

func TestDevices_MoreThanIsReadOfAUser_AreLeftOut_AndTheShortOnesThatMayBeSignedLast(t *testing.T) {
	self := id.Ed25519(strings.Repeat("S", 43))
	devices := map[id.DeviceID]json.RawMessage{}
	put := func(name string, size int, signed bool) {
		raw := strings.Repeat("x", size)
		if signed {
			raw = string(self) + raw[:size-len(self)]
		}
		devices[id.DeviceID(name)] = json.RawMessage(raw)
	}
	for n := range 1000 { // as Synapse has them at most
		put(fmt.Sprint("honest", n), 1024, n%2 == 0)
	}
	if few, more := crypto.Few("@a:b", self, devices); more != 0 || !slices.IsSorted(few) {
		t.Errorf("of a thousand devices that are as long as they are %d are left out", more)
	}
	for n := range 100 {
		put(fmt.Sprint("a long one", n), crypto.MostSaid, true)
		put(fmt.Sprint("unsigned", n), 500, false)
	}
	few, more := crypto.Few("@a:b", self, devices)
	read := 0
	for _, name := range few {
		read += len(devices[name])
	}
	if read > crypto.MostOfUser || len(few)+more != len(devices) {
		t.Errorf("%d bytes are read, of %d devices", read, len(few))
	}
	for n := range 1000 {
		if name := id.DeviceID(fmt.Sprint("honest", n)); n%2 == 0 && !slices.Contains(few, name) {
			t.Errorf("%s is left out", name)
		}
	}
}

// A thousand devices that say that their owner has signed them, and as much as they may, are before his own.
func TestDevices_ThatAreLongAndOnlySeemToBeSigned_PushOutNoneThatIs(t *testing.T) {
	w, bot, room, _, _ := members(t)
	honest := w.alice.made("ZZ HONEST", true)
	honest.Unsigned = map[string]any{"device_display_name": strings.Repeat("a", 100)}
	if raw, _ := json.Marshal(honest); len(raw) > crypto.MostSaid/2 {
		t.Errorf("a device as mautrix makes it has %d bytes, of %d", len(raw), crypto.MostSaid)
	}
	devices := map[string]any{"ZZ HONEST": honest}
	self := id.NewKeyID(id.KeyAlgorithmEd25519, w.alice.olm.CrossSigningKeys.SelfSigningKey.PublicKey().String())
	device := w.alice.made("A", false, func(keys *mautrix.DeviceKeys) {
		keys.Algorithms = append(keys.Algorithms, id.Algorithm(strings.Repeat("a", 1500)))
	})
	device.Signatures[w.alice.ID()][self] = strings.Repeat("A", 86)
	for n := range 1000 {
		devices[fmt.Sprintf("A%04d", n)] = device
	}
	defer w.alice.answers(devices, func(fields) {})()
	w.outdated(w.alice.ID())
	_, err := w.seal(bot, room, "x")
	w.no(err)
	if known, err := w.crypto.Devices(t.Context(), bot, w.alice.ID()); err != nil || known["ZZ HONEST"] == nil {
		t.Errorf("%d devices are known, the signed one not among them; %v", len(known), err)
	}
}

// A server has any number of users in a room and says as much as it may of each. Nobody else has less for it, nor who has no more devices than people have.
func TestDevices_OfAServerThatSaysTooMuchOfManyUsers_AreFewer_AndNobodyElses(t *testing.T) {
	said, asked := map[id.UserID]fields{}, []id.UserID{}
	has := func(user id.UserID, devices int) {
		said[user], asked = fields{}, append(asked, user)
		for n := range devices {
			said[user][fmt.Sprint(n)] = fields{"user_id": user, "device_id": fmt.Sprint(n), "keys": fields{}, "algorithms": []string{}, "unsigned": fields{"x": strings.Repeat("a", 2500)}}
		}
	}
	const loud = 20
	for n := range loud {
		has(id.UserID(fmt.Sprintf("@loud%d:evil.test:8448", n)), crypto.MostDevices)
	}
	for n := range 100 {
		has(id.UserID(fmt.Sprintf("@quiet%d:evil.test:8448", n)), 12)
	}
	has("@many:evil.test", crypto.MostDevices)
	has("@many:hs.test", crypto.MostDevices)
	body, err := json.Marshal(fields{"device_keys": said})
	if err != nil {
		t.Fatal(err)
	}
	if body, err = crypto.CutQueried(asked, body); err != nil {
		t.Fatal(err)
	}
	var left struct {
		Devices map[id.UserID]map[string]json.RawMessage `json:"device_keys"`
	}
	if err := json.Unmarshal(body, &left); err != nil {
		t.Fatal(err)
	}
	read, fewest, most := 0, crypto.MostDevices, 0
	for user, devices := range left.Devices {
		for _, raw := range devices {
			if user.Homeserver() == "evil.test:8448" {
				read += len(raw)
			}
		}
		switch {
		case strings.HasPrefix(string(user), "@loud"):
			fewest, most = min(fewest, len(devices)), max(most, len(devices))
		case len(devices) != len(said[user]):
			t.Errorf("of %s %d of %d devices are left", user, len(devices), len(said[user]))
		}
	}
	if bound := crypto.MostOfServer + (loud+100)*crypto.UsualOfUser; read > bound || read < bound*3/4 || most-fewest > 1 {
		t.Errorf("%d bytes are read of one server, of %d; of its users with too many %d to %d devices", read, bound, fewest, most)
	}
}
