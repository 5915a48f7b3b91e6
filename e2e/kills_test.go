package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bench/soak"
)

// The soak of bench/soak, between servers that people run: the bridge is ended with kill -9 at named steps and at any time, and
// Synapse too. KILLS is how often (50), SOAK_SEED makes the choices of an earlier run again.
func TestKills_SynapseAndInspIRCd_NothingIsLostDoubledOrReordered(t *testing.T) {
	kills, seed := 50, time.Now().UnixNano()
	for variable, at := range map[string]func(n int64){
		"KILLS": func(n int64) { kills = int(n) }, "SOAK_SEED": func(n int64) { seed = n },
	} {
		if text := os.Getenv(variable); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 1 {
				t.Fatalf("%s is %q: it must be a number from 1 on", variable, text)
			}
			at(n)
		}
	}
	binary := filepath.Join(t.TempDir(), "trestle-irc")
	if err := compileBridge(binary, "goolm,failpoints"); err != nil {
		t.Fatal(err)
	}
	soak.Run(t, soak.Options{
		Homeserver: newMortalSynapse(t), IRC: newPeopledIRC(t, StartInspIRCd(t)), Binary: binary, Delivery: "at_most_once",
		Seed: uint64(seed), Database: "sqlite:bridge.db", Kills: kills, Rooms: 5, Patience: time.Second, Ahead: 3, Restarts: max(kills/16, 1), Between: 24,
	})
}
