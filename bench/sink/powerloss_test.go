//go:build linux && (amd64 || arm64)

package main

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/trestle-bridge/trestle/bench/internal/powerloss"
)

// lossesVariable says how often the power is lost, for runs longer than the usual one.
const lossesVariable = "TRESTLE_POWER_LOSSES"

// A plan says when the power goes: before one of the first so many calls of a kind, from a stage of the sink's life on.
type plan struct {
	what  string
	stage stage
	calls func() func(powerloss.Op) bool // nil: at once
	among int
}

type stage int

const (
	starting stage = iota // from the start of the process on
	serving               // from when it takes transactions
	busy                  // after some transactions
	stopping              // from SIGTERM on, after some transactions
)

var soon = plan{"after some transactions", busy, nil, 1}

// plans are the moments at which SQLite, or the way in which the store uses it, could get something wrong.
var plans = []plan{
	soon,
	{"under load", serving, anyCall, 300},
	{"in a checkpoint", serving, writesTo(databaseName), 300},
	{"while the WAL starts over", serving, fromTheWALsSecondHeader, 60},
	{"in a start", starting, anyCall, 30},
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
func TestSink_PowerLost_LosesNothing(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			binary := d.build(t, nil)
			n := times(t, lossesVariable, len(plans))
			t.Run("under load", func(t *testing.T) { loseUnderLoad(t, binary, n) })
			t.Run("while the database is made", func(t *testing.T) { loseNewDatabases(t, binary, n) })
		})
	}
}

func loseUnderLoad(t *testing.T, binary string, n int) {
	c := newComputer(t, binary)
	for i := range n {
		p, loss := plans[i%len(plans)], powerloss.Loss{}
		if i > 0 {
			loss = losses[rand.IntN(len(losses))]
		}
		after := 1 + rand.IntN(p.among)
		if err := c.live(t, p, after); err != nil {
			t.Fatalf("after %d losses of power: %v", i, err)
		}
		before := c.forgotten
		c.restore(t, loss)
		t.Logf("power lost %s, at call %d: %d events acknowledged, %+v, %d forgotten", p.what, after, c.acknowledged, loss, c.forgotten-before)
		if err := c.sound(t); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.finish(t); err != nil {
		t.Fatalf("at the end, after %d losses of power: %v", n, err)
	}
	if c.forgotten == 0 {
		t.Fatal("nothing was forgotten, so that nothing was shown")
	}
	t.Logf("power lost %d times, %d events acknowledged, %d writes and changes of the folder forgotten", n, c.acknowledged, c.forgotten)
}

// loseNewDatabases loses power at so many moments of a database's first start. It must start again, and from its first
// answer on nothing may be lost, nor the file itself.
func loseNewDatabases(t *testing.T, binary string, n int) {
	all := 0
	first := newComputer(t, binary)
	first.disk.CutBefore(func(powerloss.Op) bool {
		all++
		return false
	})
	if err := first.boot(t); err != nil {
		t.Fatal(err)
	}
	first.off()
	n = min(n, all)
	for i := range n {
		call, loss := 1+(i*all+rand.IntN(all))/n, losses[rand.IntN(len(losses))]
		c, left := newComputer(t, binary), call
		c.disk.CutBefore(func(powerloss.Op) bool {
			left--
			return left == 0
		})
		err := c.boot(t)
		if err == nil {
			c.restore(t, loss)
			err = errors.Join(c.sound(t), c.boot(t))
		}
		if err == nil {
			err = c.whole()
		}
		if err == nil {
			c.wait(t, c.send(1))
			c.restore(t, powerloss.Loss{})
			if err = c.boot(t); err == nil {
				err = c.complete(c.process)
			}
		}
		if err != nil {
			t.Fatalf("power lost at call %d of %d, %+v: %v", call, all, loss, err)
		}
		c.off()
	}
	t.Logf("power lost at %d of the %d calls that make a database", n, all)
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
	enough := c.send(20)
	switch p.stage {
	case busy:
		c.wait(t, enough)
	case stopping:
		c.wait(t, enough)
		arm()
		return c.stop(t)
	default:
		c.untilCut(t)
	}
	return nil
}
