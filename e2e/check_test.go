package e2e

import (
	"fmt"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

func TestCrossing_CheckBesideARunningBridgeOnSQLite_DoesNoHarm(t *testing.T) {
	checkBesideRunning(t, CrossingOptions{})
}

func TestCrossing_CheckBesideARunningBridgeOnPostgreSQL_DoesNoHarm(t *testing.T) {
	checkBesideRunning(t, CrossingOptions{StorePostgres: StartPostgres(t)()})
}

// checkBesideRunning runs the subcommand check as an operator would who wonders about a bridge that runs: the bridge goes
// on, and check says what it cannot find out beside it.
func checkBesideRunning(t *testing.T, opts CrossingOptions) {
	c := NewCrossing(t, opts)
	devices := c.DevicesOf(c.Bridge.Bot)
	status, out := c.Bridge.Ask("check")
	for _, text := range []string{"reached the running bridge", "OK    ghosts ", "OK    devices ", "WARN  to-device     cannot be found out while the bridge runs"} {
		if status != 0 || !strings.Contains(out, text) {
			t.Errorf("check ended with status %d, and does not say %q:\n%s", status, text, out)
		}
	}
	if left := c.DevicesOf(c.Bridge.Bot); len(left) != len(devices) {
		t.Errorf("the bot has the devices %v, and had %v", left, devices)
	}
	words := c.Words("still there?")
	c.Alice.Say(c.Room, words)
	c.ToIRC(words)
	words = c.Words("still here")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("SIGTERM ended the bridge with status %d", code)
	}
}

// The switches that no endpoint of Synapse tells of are found out by what it sends.
func TestCheck_OnSynapse_FindsOutWhichSwitchesAreOff(t *testing.T) {
	irc := StartInspIRCd(t)
	for _, c := range []struct {
		name                 string
		toDevice, extensions bool
		says                 []string
	}{
		{"both on", true, true, []string{"OK    to-device ", "OK    device lists "}},
		{"to-device off", false, true, []string{"WARN  to-device     the homeserver does not send the bridge messages", "→ write msc2409_to_device_messages_enabled: true under experimental_features in homeserver.yaml", "OK    device lists "}},
		{"extensions off", true, false, []string{"OK    to-device ", "WARN  device lists  the homeserver does not send the bridge device lists", "→ write msc3202_transaction_extensions: true under experimental_features in homeserver.yaml"}},
		{"both off", false, false, []string{"WARN  to-device     the homeserver did not send", "WARN  device lists  the homeserver did not send"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := FreePort(t)
			b := NewBridge(t, BridgeOptions{SynapsePort: port, IRC: irc})
			s := StartSynapse(t, SynapseOptions{
				Port: port, Registrations: []string{b.Registration},
				Config: fmt.Sprintf("experimental_features: {msc2409_to_device_messages_enabled: %v, msc3202_transaction_extensions: %v}", c.toDevice, c.extensions),
			})
			status, out := b.Ask("check")
			t.Logf("\n%s", out)
			for _, text := range append(c.says, "answers, Synapse 1.", "OK    token ", "OK    ping ", "OK    namespaces ", "OK    devices ", "OK    login         the homeserver refuses", "OK    upload        the homeserver has asynchronous") {
				if status != 0 || !strings.Contains(out, text) {
					t.Errorf("check ended with status %d, and does not say %q", status, text)
				}
			}
			var left struct {
				Devices []struct {
					ID id.DeviceID `json:"device_id"`
				} `json:"devices"`
			}
			if s.GetAs(b.Token(), b.Bot, "/_matrix/client/v3/devices", &left); len(left.Devices) != 0 {
				t.Errorf("check has left devices of the bot: %v", left.Devices)
			}
			// And again: what the first one caused is not held against the bridge.
			if again, out := b.Ask("check"); again != 0 || !strings.Contains(out, c.says[0]) {
				t.Errorf("the second check ended with status %d, and does not say %q:\n%s", again, c.says[0], out)
			}
		})
	}
}
