package soak

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	atLeastOnce = "at_least_once"
	onSQLite    = "sqlite"
	onPostgres  = "postgres"
	sqliteFile  = "sqlite:bridge.db"
)

// numberOf reads a number from the environment.
func numberOf(t *testing.T, variable string, usual int64) int64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q: it must be a number from 1 on", variable, text)
	}
	return n
}

func TestBridge_KilledAgainAndAgain_LosesAndDoublesNothing(t *testing.T) {
	kills := int(numberOf(t, "SOAK_KILLS", 6))
	seed := numberOf(t, "SOAK_SEED", time.Now().UnixNano())
	binary := filepath.Join(t.TempDir(), "trestle-irc")
	buildBridge(t, binary, "goolm,failpoints")
	// What the sessions of the IRC bridge promise is a setting, so there are two runs. The usual one has most of the kills.
	// The store that most people have has most of the kills too; SOAK_STORE=postgres gives the other all of them.
	few := max(kills/5, 2)
	if text := os.Getenv("SOAK_STORE"); text != "" && text != onPostgres && text != onSQLite {
		t.Fatalf("SOAK_STORE is %q: it must be %s or %s, or be left out for some of both", text, onSQLite, onPostgres)
	}
	elsewhere := os.Getenv("SOAK_STORE") == onPostgres
	if !elsewhere {
		secret := max(kills/10, 2)
		own := few + secret
		if os.Getenv("SOAK_STORE") == "" {
			own += few
		}
		t.Run(atMostOnce, func(t *testing.T) { kill(t, binary, atMostOnce, uint64(seed), max(kills-own, 2), sqliteFile) })
		t.Run(atLeastOnce, func(t *testing.T) { kill(t, binary, atLeastOnce, uint64(seed)+1, few, sqliteFile) })
		t.Run("encrypted", func(t *testing.T) { killSecret(t, binary, uint64(seed)+3, secret) })
	}
	if os.Getenv("SOAK_STORE") != onSQLite {
		if !elsewhere {
			kills = few
		}
		t.Run(atMostOnce+"_"+onPostgres, func(t *testing.T) { kill(t, binary, atMostOnce, uint64(seed)+2, kills, storetest.Postgres(t)) })
	}
}

func kill(t *testing.T, binary, delivery string, seed uint64, kills int, database string) {
	opts := testWorld(t, binary, delivery, seed, database)
	opts.Kills, opts.Restarts = kills, kills/10
	Run(t, opts)
}
