//go:build failpoints

package simulation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/store"
)

func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1) // a seed then does the same again
	goleak.VerifyTestMain(m)
}

func numberOf(t *testing.T, variable string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q: it must be a number from 1 on", variable, text)
	}
	return n
}

func TestSimulation_WhateverGoesWrong_NothingIsLostDoubledOrReordered(t *testing.T) {
	template := filepath.Join(t.TempDir(), "template.db")
	db, err := store.Open(context.Background(), "sqlite:"+template, store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	total := &tally{}
	first, count := numberOf(t, "SIM_FIRST", 1), numberOf(t, "SIM_SEEDS", 200)
	one := numberOf(t, "SIM_SEED", 0)
	if one > 0 {
		first, count = one, 1
	}
	began := time.Now()
	for seed := first; seed < first+count; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			synctest.Test(t, func(t *testing.T) { simulate(t, seed, template, total, one > 0) })
		})
	}
	took := time.Since(began)
	t.Logf("%d seeds in %v, %v each; %d messages to Matrix, %d comings and goings, %d messages to the network, %d dead letters (%d in doubt), %d sent again, %d crashes, %d commits that failed",
		count, took.Round(time.Second), (took / time.Duration(count)).Round(time.Millisecond),
		total.toMatrix, total.comings, total.toNetwork, total.dead, total.doubt, total.again, total.crashes, total.failed)
}

// patience is how long everything may take to go its way once nothing goes wrong any more, in the bubble's time.
const patience = 2 * time.Hour

func simulate(t *testing.T, seed uint64, template string, total *tally, show bool) {
	w := newWorld(t, seed, template)
	w.note("%+v", w.character)
	w.calm.Store(true)
	p := w.begin(0, w.database(0), w.crashes > 0)
	w.ok(w.connected())
	w.calm.Store(false)
	var actors sync.WaitGroup
	actors.Go(w.aliceTalks)
	things := w.character.onNetwork/len(w.rooms) + 1
	for i := range w.rooms {
		actors.Go(func() { w.networkTalks(w.cfg.Bridge.Plumb[i].Channel, i, things) })
	}
	silent := make(chan struct{})
	go func() {
		actors.Wait()
		close(silent)
	}()
	database := w.live(p, silent, total)
	total.failed += w.failures
	w.check(database, total)
	if len(w.wrong) > 0 {
		t.Errorf("seed %d:\n  %s\nagain: SIM_SEED=%[1]d", seed, strings.Join(w.wrong, "\n  "))
	}
	if show || t.Failed() {
		t.Logf("what happened:\n  %s", strings.Join(w.trace, "\n  "))
		t.Logf("the log:\n%s", w.log.String())
	}
}

// connected returns once the bridge has connected every room: before, what is said in them is not its affair.
func (w *world) connected() error {
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Second) {
		joined := 0
		for _, room := range w.rooms {
			if members, err := w.alice.Members(w.ctx, room); err != nil {
				return err
			} else if members[w.bot()] == "join" {
				joined++
			}
		}
		if joined == len(w.rooms) {
			time.Sleep(10 * time.Second)
			return nil
		}
	}
	return errors.New("the bridge does not come into its rooms")
}

// live runs process after process until everything has gone its way, and gives the database of the last.
func (w *world) live(p *process, silent <-chan struct{}, total *tally) (database string) {
	database = p.database
	crashes := w.crashes
	tick := time.Second
	var calmSince time.Time
	nudged := false
	for {
		select {
		case <-p.died:
			crashes--
			total.crashes++
			w.end(p)
			database = p.next
			time.Sleep(upTo(w.about("the pause"), 20*time.Second))
			p = w.begin(p.number+1, database, crashes > 0 && !w.calm.Load())
			continue
		case err := <-p.ended:
			w.note("process %d ends by itself: %v", p.number, err)
			p.ended <- err
			w.end(p)
			time.Sleep(time.Second)
			p = w.begin(p.number+1, database, false)
			continue
		case <-silent:
			silent = nil
			w.calm.Store(true)
			calmSince = time.Now()
			w.note("nothing goes wrong any more")
			continue
		case <-time.After(tick):
		}
		if calmSince.IsZero() {
			continue
		}
		what := w.open(p)
		if what == "" {
			break
		}
		if !nudged && time.Since(calmSince) > patience/4 {
			// Synapse that was restarted while the bridge was away sends nothing before something new happens.
			nudged = true
			w.nudge()
		}
		if time.Since(calmSince) > patience {
			w.complain("after %v %s", patience, what)
			break
		}
		tick = min(2*tick, time.Minute)
	}
	time.Sleep(10 * time.Minute) // in which something might come twice, and what has arrived without the bridge's knowing is tried again
	w.end(p)
	return database
}
