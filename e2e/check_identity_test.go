//go:build goolm

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A database from before a reset is found out by the keys that Synapse has.
func TestCheck_DatabaseFromBeforeAResetIsPutBack_SaysSo(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{Encryption: map[string]any{"mode": "ghosts"}})
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("the bridge ended with status %d", code)
	}
	database := filepath.Join(c.Bridge.dir, "bridge.db")
	before, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	if status, out := c.Bridge.Ask("reset-cross-signing", "-yes"); status != 0 {
		t.Fatalf("reset-cross-signing ended with status %d:\n%s", status, out)
	}
	if _, out := c.Bridge.Ask("check"); strings.Contains(out, "  encryption ") {
		t.Errorf("after the reset check says:\n%s", out)
	}
	if err := os.WriteFile(database, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out := c.Bridge.Ask("check"); status != 1 || !strings.Contains(out, "FAIL  encryption    the homeserver has cross-signing keys of "+string(c.Bridge.Bot)) {
		t.Errorf("check ends with status %d:\n%s", status, out)
	}
}
