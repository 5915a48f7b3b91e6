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
	"github.com/trestle-bridge/trestle/internal/notrun"
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
		notrun.Skip(t, err)
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

func TestReaches_TheShareOfADiskSoSlow_IsTheGoal(t *testing.T) {
	for _, share := range []float64{goalSQLite, goalPostgres} {
		for _, its := range []float64{0.1, 0.5, 6} {
			sync := reaches(share, its)
			d := disk{rate: bigSize / sync * 1000}
			rate := bigSize / (its + sync) * 1000
			if got := rate / d.rate; math.Abs(got-share) > 1e-9 {
				t.Errorf("with %g ms of its own and a sync of %g ms the share is %g instead of %g", its, sync, got, share)
			}
			if got := own(rate, d); math.Abs(got-its) > 1e-9 {
				t.Errorf("%g ms of its own are taken for %g", its, got)
			}
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

// twoDisks is a run in which a transaction took so much beside its sync, on this disk and on the slower one.
func twoDisks(t *testing.T, here, slower time.Duration) *bench {
	sink := &target{name: "sqlite", title: "SQLite (mattn)", sink: true}
	b := &bench{options: &options{rounds: 1, seconds: 1, dir: t.TempDir()}, here: newSeries(0), slower: newSeries(time.Millisecond)}
	for s, own := range map[*series]time.Duration{b.here: here, b.slower: slower} {
		s.targets = []*target{sink}
		s.probes = []*probe{probedAs(50*time.Microsecond+s.longer, 100*time.Microsecond+s.longer)}
		s.measured["sqlite"] = []*measurement{measuredAs(own + 100*time.Microsecond + s.longer)}
	}
	return b
}

// reported is the report with single spaces.
func (b *bench) reported() string {
	report := &bytes.Buffer{}
	b.report(report)
	return strings.Join(strings.Fields(report.String()), " ")
}

func TestReport_TwoDisks_BothAreNamedAndTheGoalIsPlacedBetween(t *testing.T) {
	said := twoDisks(t, 500*time.Microsecond, 700*time.Microsecond).reported()
	for _, want := range []string{
		"On a disk whose sync takes 1 ms longer",
		"fdatasync 90909 1.00", "SQLite (mattn) 55556 0.61",
		"AN ESTIMATE", "SQLite (mattn) 0.50 0.70 0.30 0.21 to 0.30 ms -sync 0.20ms",
		"share of fdatasync, on this disk (50 us) 0.167 (at least 0.300) not reached",
		"share of fdatasync, with syncs of 1.05 ms 0.611 (at least 0.300) reached",
		"one event, p50, to one fdatasync, with syncs of 1.05 ms", "one event, p99, to one fdatasync, with syncs of 1.05 ms",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the report has no %q: %s", want, said)
		}
	}
}

func TestReport_TargetFasterThanTheDisk_IsTooUnsteadyForAnEstimate(t *testing.T) {
	if said := twoDisks(t, 500*time.Microsecond, -100*time.Microsecond).reported(); !strings.Contains(said, "SQLite (mattn) 0.50 -0.10 0.30 too unsteady to tell -") {
		t.Error(said)
	}
}

func TestReport_NoSlowerDisk_OnlyThisOneIsNamed(t *testing.T) {
	b := &bench{options: &options{rounds: 1, seconds: 1, dir: t.TempDir()}, here: newSeries(0)}
	sink := &target{name: "sqlite", title: "SQLite (mattn)", sink: true}
	b.here.targets, b.here.probes = []*target{sink}, []*probe{probedAs(50*time.Microsecond, 100*time.Microsecond)}
	b.here.measured["sqlite"] = []*measurement{measuredAs(600 * time.Microsecond)}
	if said := b.reported(); strings.Contains(said, "ESTIMATE") || strings.Contains(said, "with syncs of") || !strings.Contains(said, "on this disk (50 us)") {
		t.Fatal(said)
	}
}

func TestToDesign_AFastDisk_LacksWhatItIsFasterBy(t *testing.T) {
	fast := probedAs(50*time.Microsecond, 100*time.Microsecond).big
	longer, err := toDesign(fast)
	if err != nil {
		t.Fatal(err)
	}
	if got := bigSize / (100*time.Microsecond + longer).Seconds(); math.Abs(got-designRate) > designRate/100 {
		t.Errorf("with syncs that take %s longer it makes %.0f events/s durable, not %.0f", longer, got, designRate)
	}
}

func TestToDesign_ASlowDisk_SaysThatItsOwnFiguresStand(t *testing.T) {
	if _, err := toDesign(probedAs(time.Millisecond, time.Millisecond).big); err == nil || !strings.Contains(err.Error(), "1 ms here without it, not less than the 459 us") {
		t.Fatalf("error %v", err)
	}
}

func TestOptions_SyncThatIsNoTime_IsRefused(t *testing.T) {
	for sync, good := range map[string]bool{designSync: true, "1ms": true, "0": true, "-1ms": false, "soon": false, "": false} {
		if err := (&options{rounds: 1, seconds: 1, sync: sync}).check(); (err == nil) != good {
			t.Errorf("-sync %q: %v", sync, err)
		}
	}
}

func TestReport_TheDesignsDisk_IsNamed(t *testing.T) {
	b := twoDisks(t, 500*time.Microsecond, 700*time.Microsecond)
	b.slower.design = true
	said := b.reported()
	for _, want := range []string{"On the design's disk (fdatasync: 218000 events/s in hundreds, with every sync 1 ms longer)", "share of fdatasync, on the design's disk (1.05 ms)"} {
		if !strings.Contains(said, want) {
			t.Errorf("the report has no %q: %s", want, said)
		}
	}
}
