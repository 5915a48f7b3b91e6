package lanes_test

import (
	"context"
	"slices"
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
	l.Finish(lanes.Outcome{Lane: "a", Done: 1})
	expect("a", 2, 3)
	l.Finish(lanes.Outcome{Lane: "a", Done: 2})
	expect("a", 4)
	l.Finish(lanes.Outcome{Lane: "b", Done: 1})
	if items, count := l.Len(); items != 1 || count != 1 {
		t.Errorf("%d items in %d lanes are left", items, count)
	}
	l.Finish(lanes.Outcome{Lane: "a", Done: 0, RetryAfter: time.Nanosecond}) // it failed, and is tried again
	expect("a", 4)

	ended := make(chan error, 1)
	go func() { ended <- l.Drain(t.Context()) }()
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Drain(short); err == nil {
		t.Error("Drain did not wait for Finish")
	}
	l.Finish(lanes.Outcome{Lane: "a", Done: 1})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPending_FinishBeforeWorkReturns_CountsAllTheSame(t *testing.T) {
	var l *lanes.Lanes[int]
	left := make(chan struct{}, 100)
	l = lanes.NewBatch(ints, 3, 1, func(_ context.Context, lane string, items []int) (int, time.Duration) {
		l.Finish(lanes.Outcome{Lane: lane, Done: 1})
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

func TestAddAll_SeveralLanes_EachInOrderAndNoneAfterDrain(t *testing.T) {
	turns := make(chan turn, 10)
	l := lanes.NewBatch(ints, 1, 4, func(_ context.Context, lane string, items []int) (int, time.Duration) {
		turns <- turn{lane, append([]int(nil), items...)}
		return len(items), 0
	})
	several := func(yield func(string, []int) bool) {
		_ = yield("a", []int{1, 2}) && yield("b", []int{3}) && yield("nothing", nil) && yield("a", []int{4})
	}
	l.AddAll(several)
	if items, count := l.Len(); items != 4 || count != 2 {
		t.Fatalf("%d items in %d lanes wait", items, count)
	}
	l.Start(t.Context())
	for _, want := range []turn{{"a", []int{1, 2, 4}}, {"b", []int{3}}} {
		if got := <-turns; got.lane != want.lane || !slices.Equal(got.items, want.items) {
			t.Errorf("%v was given, want %v", got, want)
		}
	}
	l.AddAll(several) // to lanes that were there before
	for _, want := range []turn{{"a", []int{1, 2, 4}}, {"b", []int{3}}} {
		if got := <-turns; got.lane != want.lane || !slices.Equal(got.items, want.items) {
			t.Errorf("%v was given, want %v", got, want)
		}
	}
	drain(t, l)
	l.AddAll(several)
	if items, count := l.Len(); items != 0 || count != 0 {
		t.Errorf("%d items in %d lanes came after Drain", items, count)
	}
}
