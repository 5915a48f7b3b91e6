package soak

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What people run has no failpoints: neither their functions, nor their names, nor the variable. The bridge that is killed is
// the control.
func TestRelease_HasNothingOfTheFailpoints(t *testing.T) {
	traces := func(tags string) (found int) {
		binary := filepath.Join(t.TempDir(), "trestle-irc")
		buildBridge(t, binary, tags)
		symbols, err := exec.Command("go", "tool", "nm", binary).Output()
		if err != nil {
			t.Fatalf("reading the symbols: %v", err)
		}
		program, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(symbols, []byte("internal/failpoint.")) + bytes.Count(program, []byte("FAILPOINT")) + bytes.Count(program, []byte("irc write"))
	}
	if n := traces("goolm"); n != 0 {
		t.Errorf("the bridge has %d traces of failpoints", n)
	}
	if n := traces("goolm,failpoints"); n == 0 {
		t.Error("nor has the bridge that has them: they are not looked for in the right way")
	}
}
