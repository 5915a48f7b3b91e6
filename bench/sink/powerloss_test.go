//go:build linux && (amd64 || arm64)

package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/powerloss"
)

// lossesVariable says how often the power is lost, for runs longer than the usual one.
const lossesVariable = "TRESTLE_POWER_LOSSES"

// A plan says when the power goes: before one of the first so many calls of a kind, from a stage of the sink's life on.
type plan struct {
	what  string
	stage stage
	calls func() func(powerloss.Op) bool
	among int
}

type stage int

const (
	starting stage = iota // from the start of the process on
	serving               // from when it takes transactions
	stopping              // from SIGTERM on, after some transactions
)

// plans are the moments at which SQLite, or the way in which the store uses it, could get something wrong.
var plans = []plan{
	{"under load", serving, anyCall, 300},
	{"in a checkpoint", serving, writesTo(databaseName), 300},
	{"while the WAL starts over", serving, fromTheWALsSecondHeader, 60},
	{"in a start", starting, anyCall, 60},
	{"in a shutdown", stopping, anyCall, 100},
}

func anyCall() func(powerloss.Op) bool { return func(powerloss.Op) bool { return true } }

func writesTo(name string) func() func(powerloss.Op) bool {
	return func() func(powerloss.Op) bool {
		return func(op powerloss.Op) bool { return op.Kind == powerloss.Write && op.Name == name }
	}
}

// fromTheWALsSecondHeader: all calls from when the WAL is written from its start again, after a checkpoint.
func fromTheWALsSecondHeader() func(powerloss.Op) bool {
	written, over := false, false
	return func(op powerloss.Op) bool {
		if op.Kind == powerloss.Write && op.Name == databaseName+"-wal" {
			over = over || written && op.Offset == 0
			written = true
		}
		return over
	}
}

// losses are what becomes of what was not synced.
var losses = []powerloss.Loss{
	{},
	{Survive: 0.5},
	{Survive: 0.5, Block: 512},
	{Survive: 0.95, Block: 512},
	{Survive: 0.05},
}

// A homeserver sends; the power goes again and again, and with it what was not synced, in whole or in part. After each
// time the database must be sound and hold what was acknowledged, once and in order; so it must in the end.
func TestSink_PowerLostUnderLoad_LosesNothing(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			c := newComputer(t, d.build(t, ""))
			n := times(t, lossesVariable)
			if err := c.loseOften(t, n); err != nil {
				t.Fatal(err)
			}
			if c.forgotten == 0 {
				t.Fatal("nothing was forgotten, so that nothing was shown")
			}
			t.Logf("%d events acknowledged, power lost %d times, %d writes and changes of the folder forgotten", c.acknowledged, n, c.forgotten)
		})
	}
}

// loseOften gives an error when something is not there any more, or not as it should be.
func (c *computer) loseOften(t *testing.T, n int) error {
	t.Helper()
	for i := range n {
		plan, loss := plans[i%len(plans)], losses[0]
		if i >= len(plans) || plan.stage == starting {
			loss = losses[rand.IntN(len(losses))]
		}
		after := 1 + rand.IntN(plan.among)
		if err := c.live(t, plan, after); err != nil {
			return fmt.Errorf("after %d losses of power: %w", i, err)
		}
		t.Logf("power lost %s, at call %d; %d events acknowledged, %.2f of what is not synced survives", plan.what, after, c.acknowledged, loss.Survive)
		c.restore(t, loss)
		if err := c.sound(t); err != nil {
			return fmt.Errorf("power lost %s, at call %d, %+v: %w", plan.what, after, loss, err)
		}
	}
	// What the homeserver has under way arrives, and the end is a good one.
	if err := c.finish(t); err != nil {
		return fmt.Errorf("at the end, after %d losses of power: %w", n, err)
	}
	return nil
}

// live starts the sink, looks whether all is there, sends, and ends when the power is cut.
func (c *computer) live(t *testing.T, p plan, after int) error {
	t.Helper()
	defer c.off()
	arm := func() {
		counted, left := p.calls(), after
		c.disk.CutBefore(func(op powerloss.Op) bool {
			if counted(op) {
				left--
			}
			return left == 0
		})
	}
	if p.stage == starting {
		arm()
	}
	if err := c.boot(t); err != nil || c.isCut() {
		return err
	}
	if err := c.whole(); err != nil || c.isCut() {
		return err
	}
	if p.stage == serving {
		arm()
	}
	enough := c.send(1 + rand.IntN(20))
	if p.stage == stopping {
		select {
		case <-enough:
		case <-time.After(patience):
			t.Fatal("the sink takes no transactions")
		}
		arm()
		return c.stop(t)
	}
	c.untilCut(t)
	return nil
}
