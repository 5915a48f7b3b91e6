package e2e

import "testing"

func TestCrossing_CheckBesideARunningBridgeOnSQLite_DoesNoHarm(t *testing.T) {
	checkBesideRunning(t, CrossingOptions{})
}

func TestCrossing_CheckBesideARunningBridgeOnPostgreSQL_DoesNoHarm(t *testing.T) {
	checkBesideRunning(t, CrossingOptions{StorePostgres: StartPostgres(t)()})
}

// checkBesideRunning runs the subcommand check as an operator would who wonders about a bridge that runs. Whatever it
// says of the addresses that are in use, the bridge goes on.
func checkBesideRunning(t *testing.T, opts CrossingOptions) {
	c := NewCrossing(t, opts)
	_ = c.Bridge.try("check")
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
