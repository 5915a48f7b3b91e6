package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/load"
	"github.com/trestle-bridge/trestle/bench/internal/slowdisk"
)

// fileVariable makes this test binary a target, which syncs that file and says how long it took instead of an address.
const fileVariable = "TRESTLE_BENCH_FILE"

func syncOnce(path string) error {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err = datasync(f); err != nil {
		return err
	}
	fmt.Println("listening on", time.Since(begin))
	<-interrupted
	return f.Close()
}

func skipUnsupported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, slowdisk.ErrUnsupported) {
		t.Skip("NOT RUN: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestStart_TargetOfASlowerDisk_ItsSyncsTakeLonger(t *testing.T) {
	const longer = 30 * time.Millisecond
	t.Setenv(fileVariable, filepath.Join(t.TempDir(), "file"))
	b := &bench{options: &options{}}
	c, err := b.start(context.Background(), &target{
		binary: os.Args[0], args: func(string) ([]string, error) { return nil, nil }, longer: longer,
	}, "")
	skipUnsupported(t, err)
	if took, err := time.ParseDuration(c.addr); err != nil || took < longer {
		t.Errorf("a sync took %s (%v), less than %s", c.addr, err, longer)
	}
	if err = c.stop(); err != nil {
		t.Error(err)
	}
}

func TestProbe_OfASlowerDisk_ItsSyncsTakeLonger(t *testing.T) {
	const longer = 30 * time.Millisecond
	b := &bench{options: &options{}, dir: t.TempDir(), length: time.Millisecond}
	p, err := b.probe(context.Background(), longer)
	skipUnsupported(t, err)
	for what, s := range map[string]*synced{"one event": p.single, "many": p.big} {
		if least := s.latency(0); least < longer {
			t.Errorf("%s: a write and a sync took %s, less than %s", what, least, longer)
		}
	}
}

func TestPostgres_OfSomebodyElse_IsNotMeasuredOnASlowerDisk(t *testing.T) {
	if _, err := (&postgres{}).onSlower(context.Background(), t.TempDir(), time.Millisecond); err == nil || !strings.Contains(err.Error(), postgresVariable) {
		t.Fatalf("error %v", err)
	}
}

func TestLine_ThroughTwoDisks_SaysWhereAShareIsReached(t *testing.T) {
	for _, c := range []struct {
		what       string
		here, slow point
		from       float64 // of 0.3
	}{
		{"half a ms of its own, and a sync", point{0.1, 0.6}, point{1.1, 1.6}, 0.3 * 0.5 / 0.7},
		{"the same, and two syncs", point{0.1, 0.7}, point{1.1, 2.7}, 0.3 * 0.5 / 0.4},
		{"four syncs are more than 1 / 0.3", point{0.1, 0.9}, point{1.1, 4.9}, math.Inf(1)},
		{"faster than without a disk", point{0.1, 0.05}, point{1.1, 1.2}, math.NaN()},
		{"faster on the slower disk", point{0.1, 3}, point{1.1, 2}, math.NaN()},
		{"not measured", point{0.1, math.NaN()}, point{1.1, 2}, math.NaN()},
	} {
		got := through(c.here, c.slow).reaches(0.3)
		if same := got == c.from || math.Abs(got-c.from) < 1e-9 || math.IsNaN(got) && math.IsNaN(c.from); !same {
			t.Errorf("%s: from %g ms on instead of %g", c.what, got, c.from)
		}
	}
}

// measuredAs is a target or a disk whose large transactions take so long.
func measuredAs(transaction time.Duration) *measurement {
	r := &load.Result{Transactions: 1, Events: bigSize, Elapsed: transaction}
	return &measurement{single: r, big: r}
}

func probedAs(single, transaction time.Duration) *probe {
	return &probe{
		single: &synced{events: 1, elapsed: single, latencies: []time.Duration{single}},
		big:    &synced{events: bigSize, elapsed: transaction, latencies: []time.Duration{transaction}},
	}
}

func TestReport_TwoDisks_BothAreNamedAndTheGoalIsPlacedBetween(t *testing.T) {
	sink := &target{name: "sqlite", title: "SQLite (mattn)", sink: true}
	b := &bench{options: &options{rounds: 1, seconds: 1, dir: t.TempDir()}, here: newSeries(0), slower: newSeries(time.Millisecond)}
	for _, s := range b.disks() {
		s.targets = []*target{sink}
		s.probes = []*probe{probedAs(50*time.Microsecond+s.longer, 100*time.Microsecond+s.longer)}
		s.measured["sqlite"] = []*measurement{measuredAs(600*time.Microsecond + s.longer)}
	}
	report := &bytes.Buffer{}
	b.report(report)
	said := strings.Join(strings.Fields(report.String()), " ")
	for _, want := range []string{
		"On a disk whose sync takes 1 ms longer",
		"fdatasync 90909 1.00", "SQLite (mattn) 62500 0.69",
		"AN ESTIMATE", "SQLite (mattn) 0.50 1.00 0.30 0.21 ms -sync 0.11ms",
		"share of fdatasync, on this disk (50 us) 0.167 (at least 0.300) not reached",
		"share of fdatasync, with syncs of 1.05 ms 0.688 (at least 0.300) reached",
		"one event, p50, to one fdatasync, with syncs of 1.05 ms", "one event, p99, to one fdatasync, with syncs of 1.05 ms",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the report has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
}

func TestReport_NoSlowerDisk_OnlyThisOneIsNamed(t *testing.T) {
	b := &bench{options: &options{rounds: 1, seconds: 1, dir: t.TempDir()}, here: newSeries(0), missing: []string{"a disk whose syncs take 1ms longer: no"}}
	sink := &target{name: "sqlite", title: "SQLite (mattn)", sink: true}
	b.here.targets, b.here.probes = []*target{sink}, []*probe{probedAs(50*time.Microsecond, 100*time.Microsecond)}
	b.here.measured["sqlite"] = []*measurement{measuredAs(600 * time.Microsecond)}
	report := &bytes.Buffer{}
	b.report(report)
	if said := report.String(); strings.Contains(said, "ESTIMATE") || strings.Contains(said, "with syncs of") ||
		!strings.Contains(said, "on this disk (50 us)") || !strings.Contains(said, "NOT MEASURED: a disk whose syncs take 1ms longer: no\n") {
		t.Fatal(said)
	}
}
