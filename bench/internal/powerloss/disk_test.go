//go:build linux && (amd64 || arm64)

package powerloss_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/bench/internal/powerloss"
	"github.com/trestle-bridge/trestle/bench/internal/seccomp"
	"github.com/trestle-bridge/trestle/internal/notrun"
)

// scriptVariable makes this test binary the program that is watched. A script has a call per line.
const scriptVariable = "TRESTLE_POWERLOSS_SCRIPT"

func TestMain(m *testing.M) {
	if script, ok := os.LookupEnv(scriptVariable); ok {
		if err := perform(script); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done")
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func perform(script string) (err error) {
	open := map[string]*os.File{}
	for _, line := range strings.Split(script, "; ") {
		var word, name, text string
		var at int64
		_, _ = fmt.Sscan(line, &word, &name, &at, &text) // the last two are not always there
		f := open[name]
		if f == nil && word != "remove" {
			flags := os.O_RDWR | os.O_CREATE
			if word == "syncdir" {
				flags = os.O_RDONLY
			}
			if f, err = os.OpenFile(name, flags, 0o600); err != nil {
				return err
			}
			open[name] = f
		}
		switch word {
		case "write":
			_, err = f.WriteAt([]byte(text), at)
		case "fill": // so many pages full of a letter
			_, err = f.WriteAt(bytes.Repeat([]byte(text), int(at)*4096), 0)
		case "append":
			_, err = f.WriteString(text)
		case "truncate":
			err = f.Truncate(at)
		case "sync", "syncdir":
			err = f.Sync()
		case "remove":
			err = os.Remove(name)
		default:
			err = errors.New("no such call")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

func watch(t *testing.T, folder string) *powerloss.Disk {
	t.Helper()
	d, err := powerloss.New(folder)
	if errors.Is(err, seccomp.ErrUnsupported) {
		notrun.Skip(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// run runs a script until its end or until the power is cut, and kills its program.
func run(t *testing.T, d *powerloss.Disk, folder, script string, cut bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), scriptVariable+"="+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = d.Start(cmd); errors.Is(err, seccomp.ErrUnsupported) {
		notrun.Skip(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- line
	}()
	var line string
	select {
	case line = <-said:
	case <-d.Lost():
	}
	_ = cmd.Process.Kill()
	if line == "" {
		line = <-said
	}
	_ = cmd.Wait()
	if line != "" && line != "done\n" {
		t.Fatalf("the script %q ended with %s", script, line)
	}
	if cut && line != "" {
		t.Fatalf("the script %q ended before the power was cut", script)
	}
}

// lose gives the folder after a loss, "name=content name=content".
func lose(t *testing.T, d *powerloss.Disk, folder string, loss powerloss.Loss) (left string, forgotten int) {
	t.Helper()
	forgotten, err := d.Restore(loss)
	if err != nil {
		t.Fatal(err)
	}
	return listing(t, folder), forgotten
}

func listing(t *testing.T, folder string) string {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, entry := range list {
		content, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, entry.Name()+"="+strings.ReplaceAll(string(content), "\x00", "0"))
	}
	return strings.Join(parts, " ")
}

func TestDisk_EverythingUnsyncedLost_TheFolderIsAsSynced(t *testing.T) {
	for _, c := range []struct{ what, script, want string }{
		{"a write", "write a 0 XX", "a=aaaa"},
		{"a synced write", "write a 1 XX; sync a", "a=aXXa"},
		{"a write after a sync", "write a 0 XX; sync a; write a 1 YY", "a=XXaa"},
		{"a write that made the file longer", "write a 6 XX", "a=aaaa"},
		{"a synced one", "write a 6 XX; sync a", "a=aaaa00XX"},
		{"a truncation", "truncate a 1", "a=aaaa"},
		{"a synced truncation", "truncate a 1; sync a", "a=a"},
		{"a truncation and a write over it", "truncate a 0; sync a; write a 2 X", "a="},
		{"a new file", "write b 0 X; sync b", "a=aaaa"},
		{"a new file in a synced folder", "write b 0 X; sync b; syncdir .", "a=aaaa b=X"},
		{"its name alone", "write b 0 X; syncdir .", "a=aaaa b="},
		{"a removed file", "remove a", "a=aaaa"},
		{"a removed file that was written", "write a 0 X; sync a; remove a; write b 0 X", "a=Xaaa"},
		{"a file removed from a synced folder", "remove a; syncdir .", ""},
		{"another file of the same name", "remove a; write a 0 X; sync a", "a=aaaa"},
		{"the same in a synced folder", "remove a; write a 0 X; sync a; syncdir .", "a=X"},
		{"a file in memory", "append a-shm 0 X", "a=aaaa"},
	} {
		t.Run(c.what, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "a"), []byte("aaaa"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := watch(t, folder)
			run(t, d, folder, c.script, false)
			if got, _ := lose(t, d, folder, powerloss.Loss{}); got != c.want {
				t.Fatalf("after %q the folder is %q, not %q", c.script, got, c.want)
			}
			// What was restored is durable for whoever comes next.
			run(t, d, folder, "write z 0 Z; sync z; syncdir .", false)
			if got, _ := lose(t, d, folder, powerloss.Loss{}); got != strings.TrimSpace(c.want+" z=Z") {
				t.Fatalf("after one more loss the folder is %q", got)
			}
		})
	}
}

func TestDisk_PowerCutBeforeACall_ItIsNotCarriedOut(t *testing.T) {
	folder := t.TempDir()
	d := watch(t, folder)
	syncs := 0
	d.CutBefore(func(op powerloss.Op) bool {
		if op.Kind == powerloss.Sync {
			syncs++
		}
		return syncs == 2
	})
	run(t, d, folder, "write a 0 one; syncdir .; sync a; write a 0 two; sync a; write a 0 six; sync a", true)
	if got, n := lose(t, d, folder, powerloss.Loss{}); got != "a=one" || n != 1 {
		t.Fatalf("the folder is %q, with %d changes forgotten", got, n)
	}
	select {
	case <-d.Lost():
		t.Fatal("after a loss the power is still cut")
	default:
	}
}

func TestDisk_EverythingUnsyncedSurvives_AsAfterAKillAlone(t *testing.T) {
	folder := t.TempDir()
	d := watch(t, folder)
	run(t, d, folder, "write a 0 one; write b 4 two; truncate b 6; write c 0 X; remove c", false)
	if got, n := lose(t, d, folder, powerloss.Loss{Survive: 1}); got != "a=one b=0000tw" || n != 0 {
		t.Fatalf("the folder is %q, with %d changes forgotten", got, n)
	}
}

// Any part of what was not synced may survive, block by block, but no part of a block.
func TestDisk_SomeSurvives_WholeBlocksAreOldOrNew(t *testing.T) {
	for _, block := range []int64{512, 4096} {
		folder := t.TempDir()
		d := watch(t, folder)
		run(t, d, folder, "fill a 64 o; sync a; syncdir .; fill a 64 n", false)
		content, forgotten := lose(t, d, folder, powerloss.Loss{Survive: 0.5, Block: block})
		content = strings.TrimPrefix(content, "a=")
		before := 0
		for b := range strings.SplitSeq(content, "") {
			if b == "o" {
				before++
			}
		}
		if len(content) != 64*4096 || before == 0 || before == len(content) || int64(before) != int64(forgotten)*block {
			t.Fatalf("of %d bytes %d are old, with %d blocks of %d forgotten", len(content), before, forgotten, block)
		}
		for i := 0; i < len(content); i += int(block) {
			if part := content[i : i+int(block)]; part != strings.Repeat(part[:1], int(block)) {
				t.Fatalf("the block at %d is torn", i)
			}
		}
	}
}

// A write under way when the power goes may have got through in part.
func TestDisk_PowerCutInAWrite_PartOfItMaySurvive(t *testing.T) {
	folder := t.TempDir()
	d := watch(t, folder)
	d.CutBefore(func(op powerloss.Op) bool { return op.Kind == powerloss.Write && op.Size > 4096 })
	run(t, d, folder, "write a 0 o; sync a; syncdir .; fill a 64 n", true)
	content, _ := lose(t, d, folder, powerloss.Loss{Survive: 0.5})
	if n := strings.Count(content, "n"); n == 0 || n%4096 != 0 || n == 64*4096 {
		t.Fatalf("%d bytes of the last write survived", n)
	}
}

func TestDisk_FileInMemory_IsGoneOrGarbage(t *testing.T) {
	folder := t.TempDir()
	d := watch(t, folder)
	run(t, d, folder, "append a-shm 0 in-memory", false)
	if got, _ := lose(t, d, folder, powerloss.Loss{Survive: 1}); len(got) != len("a-shm=in-memory") || strings.Contains(got, "in-memory") {
		t.Fatalf("the folder is %q", got)
	}
}

func TestDisk_ChangeThatIsNotWatched_IsNoticed(t *testing.T) {
	folder := t.TempDir()
	d := watch(t, folder)
	run(t, d, folder, "write a 0 one; append a 0 two; sync a", false)
	if _, err := d.Restore(powerloss.Loss{}); !errors.Is(err, powerloss.ErrBehind) {
		t.Fatalf("error %v", err)
	}
}
