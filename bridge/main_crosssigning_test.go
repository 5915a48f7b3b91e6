//go:build goolm

package bridge_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
)

// recoveryKey is how one is written: base58 in groups of four.
var recoveryKey = regexp.MustCompile(`\n  (E[A-Za-z1-9]{3}( [A-Za-z1-9]{1,4})+)\n`)

func TestResetCrossSigning_NewKeysAndTheirRecoveryKey_AreShownOnce(t *testing.T) {
	r := newRemoval(t, 0, func(cfg *bridge.Config) { cfg.Encryption.Mode = "bot" })
	f := must(os.OpenFile(r.config, os.O_APPEND|os.O_WRONLY, 0))(t)
	must(f.WriteString("encryption: {mode: bot}\n"))(t)
	r.ok(f.Close())
	reset := func(args ...string) (int, string) {
		var both bytes.Buffer
		status := bridge.RunCommand(r.net, append([]string{"reset-cross-signing", "-config", r.config}, args...), nil, nil, &both, &both)
		return status, both.String()
	}
	if status, out := reset("-yes"); status == 0 || !strings.Contains(out, "the bridge runs") {
		t.Errorf("beside a running bridge: %d %s", status, out)
	}
	r.b.Stop()
	if status, out := reset(); status != 0 || !strings.Contains(out, "Nothing was done") {
		t.Errorf("without -yes: %d %s", status, out)
	}
	if status, out := reset("-yes", "-user", "@alice:"+r.hs.Domain()); status == 0 || !strings.Contains(out, "neither the bridge's bot nor one of its ghosts") {
		t.Errorf("of a person: %d %s", status, out)
	}
	var before string
	for range 2 {
		status, out := reset("-yes")
		key := recoveryKey.FindStringSubmatch(out)
		if status != 0 || key == nil || key[1] == before {
			t.Fatalf("%d %s", status, out)
		}
		before = key[1]
	}
	if status, out := reset("-recovery-key"); status == 0 || strings.Contains(out, before) || !strings.Contains(out, "shown before") {
		t.Errorf("once more: %d %s", status, out)
	}
	r.b.Start() // with the new keys
}
