package lanes_test

import (
	"context"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/internal/lanes"
)

// turn is what work was given.
type turn struct {
	lane  string
	items []int
}

func TestPending_LaneWaitsForFinish_AndNoWorkerDoes(t *testing.T) {
	turns := make(chan turn, 10)
	l := lanes.NewBatch(ints, 1, 2, func(_ context.Context, lane string, items []int) (int, time.Duration) {
		turns <- turn{lane, append([]int(nil), items...)}
		return lanes.Pending, 0
	})
	l.Start(t.Context())
	expect := func(lane string, items ...int) {
		t.Helper()
		got := <-turns
		if got.lane != lane || len(got.items) != len(items) || got.items[0] != items[0] {
			t.Fatalf("work was given %v, want %v of %s", got, items, lane)
		}
	}
	l.Add("a", 1, 2, 3)
	l.Add("b", 7)
	expect("a", 1, 2)
	expect("b", 7) // by the one worker, although a is not over
	l.Add("a", 4)
	select {
	case got := <-turns:
		t.Fatalf("%v was given before the turn before it was over", got)
	default:
	}
	l.Finish("a", 1, 0)
	expect("a", 2, 3)
	l.Finish("a", 2, 0)
	expect("a", 4)
	l.Finish("b", 1, 0)
	if items, count := l.Len(); items != 1 || count != 1 {
		t.Errorf("%d items in %d lanes are left", items, count)
	}
	l.Finish("a", 0, time.Nanosecond) // it failed, and is tried again
	expect("a", 4)

	ended := make(chan error, 1)
	go func() { ended <- l.Drain(t.Context()) }()
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Drain(short); err == nil {
		t.Error("Drain did not wait for Finish")
	}
	l.Finish("a", 1, 0)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPending_FinishBeforeWorkReturns_CountsAllTheSame(t *testing.T) {
	var l *lanes.Lanes[int]
	left := make(chan struct{}, 100)
	l = lanes.NewBatch(ints, 3, 1, func(_ context.Context, lane string, items []int) (int, time.Duration) {
		l.Finish(lane, 1, 0)
		left <- struct{}{}
		return lanes.Pending, 0
	})
	l.Start(t.Context())
	for i := range 100 {
		l.Add([]string{"a", "b", "c"}[i%3], i)
	}
	for range 100 {
		<-left
	}
	drain(t, l)
	if items, count := l.Len(); items != 0 || count != 0 {
		t.Errorf("%d items in %d lanes are left", items, count)
	}
}
