//go:build goolm

package e2e

import (
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/olmclient"
)

// A Synapse whose switches are off brings nobody's keys, and refuses /sync to the bot. The ghost in the room asks, and the bot reads with what it was given.
func TestCrossing_SynapseWithoutSwitches_AGhostReadsForTheBot(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{
		Encryption:    map[string]any{"mode": "ghosts"},
		SynapseConfig: "experimental_features: {msc2409_to_device_messages_enabled: false, msc3202_transaction_extensions: false}",
	})
	anna := c.Synapse.Strict("anna")
	anna.Join(c.Room)
	c.Alice.SetState(c.Room, event.StateEncryption, "", map[string]any{"algorithm": id.AlgorithmMegolmV1})
	anna.WaitFor("the encryption", func(ev *olmclient.Event) bool { return ev.Type == event.StateEncryption.Type })
	words := c.Words("here I am")
	c.Bob.Say(c.Channel, words)
	anna.WaitFor("what bob says", olmclient.Text(c.Room, words))
	for range 3 {
		words = c.Words("for the bridge")
		anna.Say(c.Room, words)
		c.ToIRC(words)
	}
	c.Bridge.Stop()
	words = c.Words("while the bridge was away")
	anna.Say(c.Room, words)
	c.Bridge.Start()
	c.ToIRC(words)
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("the bridge ended with status %d", code)
	}
	if causes := c.Bridge.DeadLetters(); len(causes) > 0 {
		t.Errorf("dead letters: %q", causes)
	}
}
