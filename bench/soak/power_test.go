//go:build linux && (amd64 || arm64)

package soak

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/overlay"
	"github.com/trestle-bridge/trestle/bench/internal/powerloss"
	"github.com/trestle-bridge/trestle/bench/internal/seccomp"
	"github.com/trestle-bridge/trestle/internal/notrun"
)

// What a kill cannot show: after a loss of power only what was synced is there. It is lost at a call of the bridge to its disk,
// with people talking on both sides, and in the end both sides and the store must agree as after kills.
func TestBridge_PowerLostAgainAndAgain_LosesAndDoublesNothing(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "trestle-irc")
	buildBridge(t, binary, "goolm")
	if wrong := losePower(t, binary, int(numberOf(t, "SOAK_LOSSES", 2))); len(wrong) > 0 {
		for _, text := range wrong {
			t.Error(text)
		}
	}
}

// Without this, the test of the bridge as it is would show nothing: one that does not sync must lose something here.
func TestBridge_PowerLostWithoutSyncs_IsNoticed(t *testing.T) {
	path, err := overlay.Write(t.TempDir(), filepath.Join("..", "..", "store"), overlay.Less("OFF"))
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "trestle-irc")
	buildBridge(t, binary, "goolm", "-overlay", path)
	wrong := losePower(t, binary, 2)
	if len(wrong) == 0 {
		t.Error("a bridge that does not sync lost its power, and nobody noticed")
	}
	for _, text := range wrong {
		t.Logf("noticed: %.200s", text)
	}
}

// losePower gives what was wrong in the end.
func losePower(t *testing.T, binary string, losses int) []string {
	s := newSoak(t, testWorld(t, binary, atMostOnce, uint64(numberOf(t, "SOAK_SEED", time.Now().UnixNano())), "sqlite:disk/bridge.db"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done: %v\nthe end of the bridge's log:\n%s", s.schedule, tail(s.log, 40))
		}
	})
	folder := filepath.Join(s.dir, "disk")
	s.ok(os.Mkdir(folder, 0o700))
	disk, err := powerloss.New(folder)
	if errors.Is(err, seccomp.ErrUnsupported) {
		notrun.Skip(t, err)
	}
	s.ok(err)
	t.Cleanup(disk.Close)
	forgotten, loss := 0, powerloss.Loss{}
	s.start = disk.Start
	s.afterwards = func() {
		n, err := disk.Restore(loss)
		if errors.Is(err, seccomp.ErrUnsupported) {
			notrun.Skip(t, err)
		}
		s.ok(err)
		forgotten += n
	}
	l := s.people()
	s.begin("")
	s.entered()
	s.stop()
	for i := range losses {
		loss = powerloss.Loss{}
		if i%2 == 1 {
			loss = powerloss.Loss{Survive: 0.5, Block: 512}
		}
		left := 1 + s.rng.IntN(400)
		s.schedule = append(s.schedule, fmt.Sprintf("power lost at call %d, %+v", left, loss))
		s.begin("")
		s.entered()
		disk.CutBefore(func(powerloss.Op) bool { left--; return left <= 0 })
		for cut := false; !cut; {
			l.onMatrix()
			l.onIRC()
			select {
			case <-disk.Lost():
				cut = true
			case <-s.ctx.Done():
				s.Fatalf("the call before which the power was to be lost does not come: %v", s.ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
		s.process.kill()
		s.dead()
		disk.CutBefore(nil)
		c, err := look(s.ctx, s.Database, s.dir)
		if err != nil {
			return []string{err.Error()}
		}
		for _, marker := range c.outbox {
			s.taken[marker] = true
		}
	}
	loss = powerloss.Loss{}
	left := s.end(l)
	s.Logf("power lost %d times, %d writes and changes of the folder forgotten", losses, forgotten)
	if forgotten == 0 {
		t.Error("nothing was forgotten, so that nothing was shown")
	}
	s.begin("") // for the links
	s.entered()
	defer s.stop()
	return s.check(l, left)
}
