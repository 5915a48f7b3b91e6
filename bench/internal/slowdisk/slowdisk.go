//go:build linux && (amd64 || arm64)

package slowdisk

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trestle-bridge/trestle/bench/internal/seccomp"
)

// ErrUnsupported: syncs cannot be made slower on this system.
var ErrUnsupported = seccomp.ErrUnsupported

// syncs are the calls that take longer.
var syncs = []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC}

// Disk is where the syncs of programs take longer.
type Disk struct {
	listener *seccomp.Listener
	waiting  sync.WaitGroup
}

// Start runs begin on a thread whose syncs take at least so much longer, as do those of the programs that it starts. It
// returns when begin does, with its error. The disk is to be closed when the programs have ended.
func Start(longer time.Duration, begin func() error) (*Disk, error) {
	return start(begin, func(asked int64) { sleepUntil(asked + longer.Nanoseconds()) })
}

// start has every sync wait first. asked is when it was taken, on the monotonic clock in ns.
func start(begin func() error, wait func(asked int64)) (_ *Disk, err error) {
	d := &Disk{}
	d.listener, err = seccomp.Start(syncs, begin, func(c *seccomp.Call) {
		asked := now()
		d.waiting.Go(func() {
			wait(asked)
			c.Continue()
		})
	})
	if err != nil {
		d.waiting.Wait()
		return nil, err
	}
	return d, nil
}

// Close stops making syncs slower. A program that still runs gets errors from them.
func (d *Disk) Close() {
	d.listener.Close()
	d.waiting.Wait()
}

func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(fmt.Sprintf("the monotonic clock: %v", err)) // by the manual it cannot be
	}
	return t.Nano()
}

// sleepUntil is as precise as the kernel can be: Go's own timers are late by up to a millisecond where all else is idle.
func sleepUntil(ns int64) {
	until := unix.NsecToTimespec(ns)
	runtime.LockOSThread() // whose slack it is: by default a sleep may be 50 us late
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // in ns; without it the sleep is less precise
	for {
		err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &until, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("sleeping until %v: %v", until, err)) // by the manual it cannot be
		}
	}
}
