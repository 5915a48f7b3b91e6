//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// On says whether there are failpoints in this program.
const On = true

// Variable is the environment variable that chooses where the process ends.
const Variable = "FAILPOINT"

// From is the environment variable that names a file: before it is there, nothing counts as passing.
const From = "FAILPOINT_FROM"

// counts says whether passings count.
var counts atomic.Bool

func begun() bool {
	if !counts.Load() {
		if file := os.Getenv(From); file != "" {
			if _, err := os.Stat(file); err != nil {
				return false
			}
		}
		counts.Store(true)
	}
	return true
}

// chosen is the point at which the process ends, and how often it is still passed before.
var chosen struct {
	point string
	left  atomic.Int64
}

func init() {
	text := os.Getenv(Variable)
	if text == "" {
		return
	}
	point, number, found := strings.Cut(text, ":")
	n, err := int64(1), error(nil)
	if found {
		n, err = strconv.ParseInt(number, 10, 64)
	}
	if _, step, ok := strings.Cut(point, " "); err != nil || n < 1 || !ok || step == "" {
		fmt.Fprintf(os.Stderr, "%s is %q: it must be \"before STEP\" or \"after STEP\", and may have a colon and a number from 1 on\n", Variable, text)
		os.Exit(2)
	}
	chosen.point = point
	chosen.left.Store(n)
}

// Watcher is called at every passing, on the goroutine that passes: point is "before STEP", "after STEP", or "fails STEP". What it
// returns of the last is the error of the step, which is then not taken.
type Watcher func(point string) error

var watcher atomic.Pointer[Watcher]

// Watch has f called from now on, instead of the one before; nil: nobody.
func Watch(f Watcher) {
	if f == nil {
		watcher.Store(nil)
		return
	}
	watcher.Store(&f)
}

// Before is passed when a step is about to be taken.
func Before(step string) { pass("before ", step) }

// After is passed when a step has been taken.
func After(step string) { pass("after ", step) }

// Fails is asked instead of taking a step that may fail.
func Fails(step string) error {
	if f := watcher.Load(); f != nil {
		return (*f)("fails " + step)
	}
	return nil
}

func pass(when, step string) {
	if f := watcher.Load(); f != nil {
		_ = (*f)(when + step)
	}
	if chosen.point != when+step || !begun() || chosen.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing more is done by whoever passes here
}
