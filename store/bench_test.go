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
			ingest := func(n int) []store.LaneRefs {
				var lanes []store.LaneRefs
				t := transaction(n*events, events, 50)
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
			b.ResetTimer()
			start := time.Now()
			work := time.Duration(0)
			for n := range b.N {
				before := time.Now()
				lanes := ingest(n)
				work += time.Since(before)
				finish(lanes)
			}
			whole := time.Since(start)
			b.StopTimer()
			probe := fdatasync(b, b.N, 580*events)
			b.ReportMetric(float64(probe)/float64(work), "ingest/fdatasync")
			b.ReportMetric(float64(probe)/float64(whole), "both-commits/fdatasync")
			b.ReportMetric(float64(probe.Nanoseconds())/float64(b.N), "probe-ns/op")
		})
	}
}

// BenchmarkFdatasync is the probe alone: the same bytes to a file that is there already.
func BenchmarkFdatasync(b *testing.B) {
	fdatasync(b, b.N, 58000)
}

func fdatasync(tb testing.TB, n, size int) time.Duration {
	f, err := os.Create(filepath.Join(tb.TempDir(), "probe"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	const room = 64 << 20
	if _, err = f.Write(make([]byte, room)); err != nil {
		tb.Fatal(err)
	}
	if err = f.Sync(); err != nil {
		tb.Fatal(err)
	}
	data := bytes.Repeat([]byte("x"), size)
	start := time.Now()
	for i, at := 0, int64(0); i < n; i++ {
		if at+int64(size) > room {
			at = 0
		}
		if _, err = f.WriteAt(data, at); err != nil {
			tb.Fatal(err)
		}
		if err = unix.Fdatasync(int(f.Fd())); err != nil {
			tb.Fatal(err)
		}
		at += int64(size)
	}
	return time.Since(start)
}
