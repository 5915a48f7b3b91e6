//go:build linux && (amd64 || arm64)

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bench/internal/overlay"
	"github.com/trestle-bridge/trestle/bench/internal/powerloss"
	"github.com/trestle-bridge/trestle/internal/notrun"
)

// sqliteDriver is one of the two ways in which the store comes to SQLite.
type sqliteDriver struct{ name, cgo, file, full string }

var drivers = []sqliteDriver{
	{"mattn", "1", "sqlite_cgo.go", "_synchronous=FULL"},
	{"modernc", "0", "sqlite_nocgo.go", "synchronous(FULL)"},
}

// The store always asks for FULL, and looks whether it got it: nobody can choose less. So a sink with less is compiled
// from sources in which both are replaced.
const (
	asserted   = "if level < 2 {"
	unasserted = "if level < 0 {"
)

// build builds the sink, with words replaced in files of the store.
func (d sqliteDriver) build(t *testing.T, replaced map[string][2]string) string {
	t.Helper()
	if d.cgo == "1" {
		cc, err := exec.Command("go", "env", "CC").Output()
		if err == nil {
			_, err = exec.LookPath(strings.Fields(string(cc))[0])
		}
		if err != nil {
			notrun.Skip(t, "there is no C compiler")
		}
	}
	binary := filepath.Join(t.TempDir(), "sink")
	path, err := overlay.Write(t.TempDir(), filepath.Join("..", "..", "store"), replaced)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-ldflags=-w", "-overlay", path, "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+d.cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the sink: %v\n%s", err, out)
	}
	return binary
}

// Without these, the test of the store as it is would show nothing: one that syncs less must lose something here.
func TestSink_PowerLostWithLessThanSynchronousFull_IsNoticed(t *testing.T) {
	for _, c := range []struct {
		driver sqliteDriver
		level  string
	}{{drivers[0], "OFF"}, {drivers[0], "NORMAL"}, {drivers[1], "OFF"}} {
		t.Run(c.driver.name+" with "+c.level, func(t *testing.T) {
			less := [2]string{c.driver.full, strings.Replace(c.driver.full, "FULL", c.level, 1)}
			binary := c.driver.build(t, map[string][2]string{c.driver.file: less, "sqlite.go": {asserted, unasserted}})
			pc := newComputer(t, binary)
			const n = 5
			for range n {
				if err := pc.live(t, soon, 0); err != nil {
					t.Logf("noticed: %v", err)
					return
				}
				pc.restore(t, powerloss.Loss{})
				if err := pc.sound(t); err != nil {
					t.Logf("noticed: %v", err)
					return
				}
			}
			t.Fatalf("the power was lost %d times, and nobody noticed; %d writes and changes of the folder were forgotten", n, pc.forgotten)
		})
	}
}
