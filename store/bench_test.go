package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trestle-bridge/trestle/store"
)

// transaction makes events of about 580 bytes over rooms, numbered from first.
func transaction(first, events, rooms int) *store.Transaction {
	t := &store.Transaction{ID: fmt.Sprint(first), Received: time.Now()}
	for i := range events {
		n := first + i
		key := fmt.Sprintf("$event%037d", n)
		room := fmt.Sprintf("!room%04d:example.org", n%rooms)
		raw := fmt.Appendf(nil, `{"event_id":"%s","room_id":"%s","type":"m.room.message","content":{"body":"`, key, room)
		raw = append(raw, bytes.Repeat([]byte("x"), 580-len(raw)-3)...)
		raw = append(raw, `"}}`...)
		t.Elements = append(t.Elements, store.Element{Kind: store.KindPDU, Lane: room, Key: key, Raw: raw})
	}
	return t
}

// BenchmarkIngest commits transactions as the intake does, each alone, and finishes their lanes as workers would.
func BenchmarkIngest(b *testing.B) {
	for _, events := range []int{100, 1} {
		b.Run(fmt.Sprintf("%d events", events), func(b *testing.B) {
			s, err := store.Open(context.Background(), "sqlite:"+filepath.Join(b.TempDir(), "b.db"), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ingest := func(t *store.Transaction) []store.LaneRefs {
				var lanes []store.LaneRefs
				err := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) (err error) {
					lanes, err = tx.Ingest(t)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				return lanes
			}
			finish := func(lanes []store.LaneRefs) {
				err := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
					for _, l := range lanes {
						if err := tx.Finish(l.Lane, l.Refs[len(l.Refs)-1]); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			var intake, whole, bare time.Duration
			probe := newProbe(b, 580*events)
			b.ResetTimer()
			for n := range b.N {
				b.StopTimer()
				t := transaction(n*events, events, 50)
				bare += probe.write(b)
				b.StartTimer()
				start := time.Now()
				lanes := ingest(t)
				intake += time.Since(start)
				finish(lanes)
				whole += time.Since(start)
			}
			b.ReportMetric(float64(bare)/float64(intake), "ingest/fdatasync")
			b.ReportMetric(float64(bare)/float64(whole), "both-commits/fdatasync")
			b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N), "probe-ns/op")
		})
	}
}

// BenchmarkFdatasync is the probe alone: the same bytes to a file that is there already.
func BenchmarkFdatasync(b *testing.B) {
	p := newProbe(b, 58000)
	for b.Loop() {
		p.write(b)
	}
}

// probe is what the disk can do: it overwrites a preallocated file and waits for the disk each time.
type probe struct {
	f    *os.File
	data []byte
	at   int64
}

const probeRoom = 64 << 20

func newProbe(tb testing.TB, size int) *probe {
	f, err := os.Create(filepath.Join(tb.TempDir(), "probe"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	if _, err = f.Write(make([]byte, probeRoom)); err != nil {
		tb.Fatal(err)
	}
	if err = f.Sync(); err != nil {
		tb.Fatal(err)
	}
	return &probe{f: f, data: bytes.Repeat([]byte("x"), size)}
}

func (p *probe) write(tb testing.TB) time.Duration {
	if p.at+int64(len(p.data)) > probeRoom {
		p.at = 0
	}
	start := time.Now()
	if _, err := p.f.WriteAt(p.data, p.at); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Fdatasync(int(p.f.Fd())); err != nil {
		tb.Fatal(err)
	}
	p.at += int64(len(p.data))
	return time.Since(start)
}
