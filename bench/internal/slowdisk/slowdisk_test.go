//go:build linux && (amd64 || arm64)

package slowdisk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/trestle-bridge/trestle/internal/notrun"
)

// fileVariable makes this test binary the program on the slower disk: it syncs that file, or starts a slower disk itself.
const fileVariable = "TRESTLE_SLOWDISK_FILE"

// patience bounds the wait for what must happen.
const patience = time.Minute

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv(fileVariable); ok {
		err := error(nil)
		if slices.Contains(os.Args, "start") {
			_, err = Start(time.Millisecond, func() error { return nil })
		} else {
			err = syncFile(path, os.Args[1:])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// syncFile makes all of these calls at the same time, and prints how long each took.
func syncFile(path string, calls []string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	took := make([]time.Duration, len(calls))
	failed := make([]error, len(calls))
	var all sync.WaitGroup
	for i, call := range calls {
		all.Go(func() {
			sync := unix.Fsync
			if call == "fdatasync" {
				sync = unix.Fdatasync
			}
			begin := time.Now()
			failed[i] = sync(fd)
			took[i] = time.Since(begin)
		})
	}
	all.Wait()
	for i, call := range calls {
		fmt.Println(call, took[i])
	}
	return errors.Join(failed...)
}

// program is this test binary, making calls.
func program(t *testing.T, calls ...string) (cmd *exec.Cmd, said *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command(os.Args[0], calls...)
	cmd.Env = append(os.Environ(), fileVariable+"="+filepath.Join(t.TempDir(), "file"))
	said = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	return cmd, said
}

func need(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrUnsupported) {
		notrun.Skip(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDisk_SyncsOfAProgram_TakeAtLeastSoMuchLonger(t *testing.T) {
	const longer = 30 * time.Millisecond
	cmd, said := program(t, "fsync", "fdatasync")
	d, err := Start(longer, cmd.Start)
	need(t, err)
	defer d.Close()
	if err = cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	atLeast(t, said, 2, longer)
}

// A shell starts the program, as a server starts processes of its own.
func TestDisk_SyncsOfWhatAProgramStarts_TakeAtLeastSoMuchLonger(t *testing.T) {
	const longer = 30 * time.Millisecond
	cmd, said := program(t)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `"$0" fsync; true`, os.Args[0]}
	d, err := Start(longer, cmd.Start)
	need(t, err)
	defer d.Close()
	if err = cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	atLeast(t, said, 1, longer)
}

func atLeast(t *testing.T, said *bytes.Buffer, calls int, longer time.Duration) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	if len(lines) != calls {
		t.Fatalf("it said %q", said)
	}
	for _, line := range lines {
		call, text, _ := strings.Cut(line, " ")
		if took, err := time.ParseDuration(text); err != nil || took < longer {
			t.Errorf("%s took %s (%v), less than %s", call, text, err, longer)
		}
	}
}

func TestDisk_SyncsOfAFunction_TakeAtLeastSoMuchLonger(t *testing.T) {
	const longer = 30 * time.Millisecond
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var took time.Duration
	d, err := Start(longer, func() error {
		begin := time.Now()
		defer func() { took = time.Since(begin) }()
		return f.Sync()
	})
	need(t, err)
	defer d.Close()
	if took < longer {
		t.Fatalf("a sync took %s", took)
	}
}

// A checkpoint that syncs must not keep a commit waiting that syncs at the same time.
func TestDisk_SyncsAtTheSameTime_WaitAtTheSameTime(t *testing.T) {
	const calls = 4
	var arrived atomic.Int32
	together, alone := make(chan struct{}), make(chan struct{})
	var once sync.Once
	cmd, said := program(t, "fsync", "fdatasync", "fsync", "fdatasync")
	d, err := start(cmd.Start, func(int64) {
		if arrived.Add(1) == calls {
			close(together)
		}
		select {
		case <-together:
		case <-alone:
		case <-time.After(patience):
			once.Do(func() { close(alone) })
		}
	})
	need(t, err)
	defer d.Close()
	if err = cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	select {
	case <-alone:
		t.Fatalf("of %d syncs at the same time, one waited alone", calls)
	default:
	}
}

func TestStart_WhatBeginsFails_ItsErrorIsReturned(t *testing.T) {
	failure := errors.New("it cannot be done")
	if _, err := Start(time.Millisecond, func() error { return failure }); !errors.Is(err, failure) {
		need(t, err)
		t.Fatalf("error %v", err)
	}
}

// Linux lets one process at a time answer the calls of another, so that in a program that is watched already it fails as
// it does where filters are forbidden.
func TestStart_NotAllowed_SaysThatItIsNotSupported(t *testing.T) {
	cmd, said := program(t, "start")
	d, err := Start(time.Millisecond, cmd.Start)
	need(t, err)
	defer d.Close()
	if err = cmd.Wait(); err == nil || !strings.Contains(said.String(), ErrUnsupported.Error()) {
		t.Fatalf("it ended with %v and said %q", err, said)
	}
}
