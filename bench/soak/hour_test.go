package soak

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// pace is the time between two things that people do in the long run, on one side each.
const pace = 100 * time.Millisecond

// sample is what the bridge's process was like at one moment.
type sample struct{ rss, heap, goroutines float64 } // bytes, bytes, number

// Nobody is killed here. People talk, come and go for SOAK_MINUTES, and the process does not grow: nothing is kept for what was
// done long ago.
func TestBridge_UnderLoadForLong_GrowsNeitherInMemoryNorInGoroutines(t *testing.T) {
	long := time.Duration(numberOf(t, "SOAK_MINUTES", 0)) * time.Minute
	every := time.Minute / 4
	if long == 0 {
		long, every = 12*time.Second, time.Second/2
	}
	binary := t.TempDir() + "/trestle-irc"
	buildBridge(t, binary, "goolm")
	s := newSoak(t, testWorld(t, binary, atMostOnce, uint64(numberOf(t, "SOAK_SEED", 1)), sqliteFile))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the bridge's log:\n%s", tail(s.log, 40))
		}
	})
	s.ok(rememberMuch(s.ctx, "sqlite:"+filepath.Join(s.dir, strings.TrimPrefix(s.Database, "sqlite:"))))
	l := s.people()
	l.guestNames = 30
	s.begin("")
	s.entered()
	samples := l.talk(long, every)
	for room := range s.rooms {
		l.writes(room, "m", func(marker string) (id.EventID, error) { return s.alice.SendText(s.ctx, s.rooms[room], marker) })
	}
	s.calm()
	samples = append(samples, s.sample())
	s.wire.mu.Lock()
	s.last = len(s.wire.links) - 1
	s.wire.mu.Unlock()
	s.stop()
	left, err := look(s.ctx, s.Database, s.dir)
	s.ok(err)
	s.begin("") // for the links
	s.entered()
	for _, wrong := range s.check(l, left) {
		s.Error(wrong)
	}
	s.stop()
	s.judge(samples, long)
}

// rememberMuch makes a store that remembers as many events as a store ever does, as one has that has been in use for long.
// Otherwise an hour would measure how that memory fills.
func rememberMuch(ctx context.Context, database string) error {
	db, err := store.Open(ctx, database, store.Options{Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	const rows, events = 20_000, 10 // most transactions bring few
	for row := 0; row < rows && err == nil; {
		err = db.Commit(ctx, db.Epoch(), func(tx *store.Tx) error {
			for range 100 {
				t := &store.Transaction{ID: fmt.Sprint("old ", row)}
				for i := range events {
					t.Elements = append(t.Elements, store.Element{Kind: store.KindPDU, Lane: "old", Key: fmt.Sprintf("$old%d.%d", row, i), Raw: []byte("{}")})
				}
				lanes, err := tx.Ingest(t)
				if err == nil {
					err = tx.Finish("old", lanes[0].Refs[events-1])
				}
				if err != nil {
					return err
				}
				row++
			}
			return nil
		})
	}
	return errors.Join(err, db.Close())
}

// talk lets people do things at a steady pace, and samples the process.
func (l *load) talk(long, every time.Duration) (samples []sample) {
	began := time.Now()
	next := began
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for time.Since(began) < long {
		select {
		case <-ticker.C:
		case <-l.process.ended:
			l.Fatalf("the bridge has ended after %v: %v", time.Since(began), l.process.err)
		}
		l.onMatrix()
		l.onIRC()
		if time.Now().Before(next) {
			continue
		}
		next = next.Add(every)
		at := l.sample()
		samples = append(samples, at)
		l.Logf("%6.1f min  %5.1f MiB resident  %5.1f MiB heap  %3.0f goroutines  %d things said", time.Since(began).Minutes(), at.rss/(1<<20), at.heap/(1<<20), at.goroutines, l.counter)
	}
	return samples
}

func (s *soak) sample() sample {
	at := sample{s.figure("process_resident_memory_bytes"), s.figure("go_memstats_heap_inuse_bytes"), s.figure("go_goroutines")}
	if at.rss < 0 || at.goroutines < 0 {
		s.Fatal("the bridge does not say how large it is")
	}
	return at
}

// judge compares the last quarter with the quarter after the first, in which caches fill and the collector finds its pace. Of
// goroutines it takes the fewest of each: how many are at work at a moment is the load's and the machine's affair, and what has
// leaked is there at every moment.
func (s *soak) judge(samples []sample, long time.Duration) {
	quarter := len(samples) / 4
	if quarter < 2 {
		s.Fatalf("there are only %d samples", len(samples))
	}
	early, late := samples[quarter:2*quarter], samples[len(samples)-quarter:]
	var report strings.Builder
	for _, figure := range []struct {
		name  string
		of    func([]sample) float64
		unit  float64
		may   float64 // how much greater the later may be
		slack float64
	}{
		{"MiB resident, median", func(all []sample) float64 { return quantile(all, 0.5, func(a sample) float64 { return a.rss }) }, 1 << 20, 1.10, 4 << 20},
		{"goroutines, fewest", func(all []sample) float64 { return quantile(all, 0, func(a sample) float64 { return a.goroutines }) }, 1, 1.10, 8},
	} {
		before, after := figure.of(early), figure.of(late)
		fmt.Fprintf(&report, "  %s: %.1f, then %.1f\n", figure.name, before/figure.unit, after/figure.unit)
		if after > before*figure.may+figure.slack {
			s.Errorf("the bridge grows: %s went from %.1f to %.1f", figure.name, before/figure.unit, after/figure.unit)
		}
	}
	s.Logf("over %v, in the second quarter and in the last:\n%s", long, report.String())
}

func quantile(samples []sample, q float64, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[int(q*float64(len(values)-1))]
}
