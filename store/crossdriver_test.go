package store_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/trestle-bridge/trestle/internal/notrun"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestDrivers_ReadEachOther(t *testing.T) {
	other := otherDriver(t)
	for what, c := range map[string]struct{ writer, reader string }{
		"this one writes":  {self(t), other},
		"the other writes": {other, self(t)},
		"to itself":        {other, other},
	} {
		t.Run(what, func(t *testing.T) {
			uri := storetest.SQLite(t)
			for _, step := range [][2]string{{c.writer, "write"}, {c.reader, "read"}, {c.writer, "read"}} {
				cmd := exec.Command(step[0])
				cmd.Env = append(os.Environ(), childEnv+"="+step[1]+" "+uri)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s by %s: %v\n%s", step[1], filepath.Base(step[0]), err, out)
				}
			}
		})
	}
}

// otherDriver builds this test with the driver that this build does not have.
func otherDriver(t *testing.T) string {
	t.Helper()
	cgo := "1"
	if store.SQLiteDriver == "sqlite3" {
		cgo = "0"
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	if _, err := exec.LookPath(cc); cgo == "1" && err != nil {
		notrun.Skip(t, "there is no C compiler, so the drivers were not tested on each other's files")
	}
	binary := filepath.Join(t.TempDir(), "other.test")
	cmd := exec.Command("go", "test", "-c", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building with CGO_ENABLED=%s: %v\n%s", cgo, err, out)
	}
	return binary
}
