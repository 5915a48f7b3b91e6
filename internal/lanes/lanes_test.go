package lanes_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/internal/lanes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ints packs what these tests put into lanes.
var ints = lanes.Packing[int]{
	Append: func(b []byte, n int) []byte { return lanes.Numbers.Append(b, int64(n)) },
	Next: func(b []byte) (int, int) {
		n, size := lanes.Numbers.Next(b)
		return int(n), size
	},
}

// seen collects what work was given, by lane.
type seen struct {
	mu    sync.Mutex
	lanes map[string][]int
	left  sync.WaitGroup
}

func (s *seen) work(_ context.Context, lane string, n int) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes == nil {
		s.lanes = map[string][]int{}
	}
	s.lanes[lane] = append(s.lanes[lane], n)
	s.left.Done()
	return 0, true
}

func drain[T any](t *testing.T, l *lanes.Lanes[T]) {
	t.Helper()
	if err := l.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestLanes_FiftyThousandLanes_KeepTheirOrderAndLeaveNothing(t *testing.T) {
	const count, each = 50_000, 4
	var s seen
	s.left.Add(count * each)
	l := lanes.New(ints, 8, s.work)
	l.Start(t.Context())
	var adders sync.WaitGroup
	for a := range 4 { // each adder owns a quarter of the lanes
		adders.Go(func() {
			for n := range each {
				for i := a; i < count; i += 4 {
					l.Add(fmt.Sprint("room", i), n)
				}
			}
		})
	}
	adders.Wait()
	s.left.Wait()
	drain(t, l)
	if len(s.lanes) != count {
		t.Fatalf("%d lanes were worked on, want %d", len(s.lanes), count)
	}
	for lane, got := range s.lanes {
		for i, n := range got {
			if n != i {
				t.Fatalf("%s came as %v", lane, got)
			}
		}
	}
	if items, lanes := l.Len(); items != 0 || lanes != 0 {
		t.Fatalf("%d items in %d lanes are left", items, lanes)
	}
}

func TestLanes_OneLaneAtATime_NeverTwoWorkersInOneLane(t *testing.T) {
	var inside [3]atomic.Int32
	var left sync.WaitGroup
	left.Add(3000)
	l := lanes.New(ints, 8, func(_ context.Context, lane string, _ int) (time.Duration, bool) {
		defer left.Done()
		i := lane[0] - 'a'
		if inside[i].Add(1) != 1 {
			t.Error("two workers in one lane")
		}
		inside[i].Add(-1)
		return 0, true
	})
	l.Start(t.Context())
	for i := range 3000 {
		l.Add(string(rune('a'+i%3)), i)
	}
	left.Wait()
	drain(t, l)
}

func TestLanes_SlowLane_DoesNotHoldAnother(t *testing.T) {
	release, other := make(chan struct{}), make(chan struct{})
	l := lanes.New(ints, 2, func(_ context.Context, lane string, _ int) (time.Duration, bool) {
		if lane == "slow" {
			<-release
		} else {
			close(other)
		}
		return 0, true
	})
	l.Start(t.Context())
	l.Add("slow", 1, 2)
	l.Add("fast", 1)
	<-other // would wait for ever if the slow lane held it
	close(release)
	drain(t, l)
}

func TestLanes_Workers_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most int
		var mu sync.Mutex
		l := lanes.New(ints, 3, func(context.Context, string, int) (time.Duration, bool) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return 0, true
		})
		l.Start(t.Context())
		for i := range 30 {
			l.Add(fmt.Sprint(i), i)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		drain(t, l)
		if most != 3 {
			t.Errorf("%d at once, want 3", most)
		}
	})
}

func TestLanes_Backoff_GivesItsWorkerBackAndKeepsTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		tries := 0
		l := lanes.New(ints, 1, func(_ context.Context, lane string, n int) (time.Duration, bool) {
			mu.Lock()
			defer mu.Unlock()
			if lane == "a" && n == 1 {
				if tries++; tries < 3 {
					return time.Second, false
				}
			}
			got = append(got, fmt.Sprint(lane, n))
			return 0, true
		})
		check := func(want string, wantTries int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(got) != want || tries != wantTries {
				t.Errorf("got %v after %d tries, want %s after %d", got, tries, want, wantTries)
			}
		}
		l.Start(t.Context())
		l.Add("a", 1, 2)
		l.Add("b", 1)
		check("[b1]", 1)
		time.Sleep(time.Second)
		check("[b1]", 2)
		time.Sleep(time.Second)
		check("[b1 a1 a2]", 3)
		drain(t, l)
	})
}

func TestLanes_Wake_EndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		l := lanes.New(ints, 1, func(context.Context, string, int) (time.Duration, bool) {
			return time.Hour, tries.Add(1) == 3
		})
		l.Start(t.Context())
		l.Add("a", 1)
		for want := int32(1); want <= 3; want++ {
			synctest.Wait()
			if tries.Load() != want {
				t.Fatalf("%d tries, want %d", tries.Load(), want)
			}
			l.Wake("a")
			l.Wake("nobody")
		}
		synctest.Wait()
		drain(t, l)
	})
}

func TestLanes_WakeWhileBusy_SkipsTheNextWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		var l *lanes.Lanes[int]
		l = lanes.New(ints, 1, func(context.Context, string, int) (time.Duration, bool) {
			n := tries.Add(1)
			if n == 1 {
				l.Wake("a")
			}
			return time.Hour, n == 2
		})
		l.Start(t.Context())
		l.Add("a", 1)
		synctest.Wait()
		if tries.Load() != 2 {
			t.Fatalf("%d tries without any time passing, want 2", tries.Load())
		}
		drain(t, l)
	})
}

func TestLanes_BusyLane_DoesNotStarveAnother(t *testing.T) {
	var got []string
	var left sync.WaitGroup
	left.Add(101)
	l := lanes.New(ints, 1, func(_ context.Context, lane string, _ int) (time.Duration, bool) {
		got = append(got, lane)
		left.Done()
		return 0, true
	})
	for i := range 100 {
		l.Add("busy", i)
	}
	l.Add("quiet", 1)
	l.Start(t.Context())
	left.Wait()
	drain(t, l)
	if got[1] != "quiet" {
		t.Errorf("the quiet lane was not second, but the lanes went %v", got[:5])
	}
}

func TestLanes_Batch_GivesSeveralAndKeepsTheRest(t *testing.T) {
	var got []string
	var left sync.WaitGroup
	left.Add(7)
	l := lanes.NewBatch(ints, 1, 4, func(_ context.Context, _ string, items []int) (int, time.Duration) {
		got = append(got, fmt.Sprint(items))
		if len(items) == 4 {
			left.Add(-2)
			return 2, 0
		}
		left.Add(-len(items))
		return len(items), 0
	})
	l.Add("a", 1, 2, 3, 4, 5, 6, 7)
	l.Start(t.Context())
	left.Wait()
	drain(t, l)
	if want := "[[1 2 3 4] [3 4 5 6] [5 6 7]]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestLanes_Drain_WaitsForWhatRunsAndTakesNothingUp(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	var worked atomic.Int32
	l := lanes.New(ints, 1, func(context.Context, string, int) (time.Duration, bool) {
		if worked.Add(1) == 1 {
			close(began)
		}
		<-release
		return 0, true
	})
	l.Start(t.Context())
	l.Add("a", 1, 2)
	l.Add("b", 1)
	<-began
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Drain(gone); err == nil {
		t.Error("Drain returned while work was running")
	}
	close(release)
	drain(t, l)
	l.Add("c", 1)
	if n := worked.Load(); n != 1 {
		t.Errorf("%d items were worked on, want 1", n)
	}
}

func TestLanes_ContextEnds_NothingIsTakenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := lanes.New(ints, 1, func(context.Context, string, int) (time.Duration, bool) {
		t.Error("worked after the context had ended")
		return 0, true
	})
	l.Start(ctx)
	l.Add("a", 1)
	drain(t, l)
}

func BenchmarkLanes_OneItemEach(b *testing.B) {
	var left sync.WaitGroup
	l := lanes.New(ints, 4, func(context.Context, string, int) (time.Duration, bool) { left.Done(); return 0, true })
	l.Start(b.Context())
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprint("room", i)
	}
	for i := 0; b.Loop(); i++ {
		left.Add(1)
		l.Add(keys[i%len(keys)], i)
	}
	left.Wait()
	_ = l.Drain(context.Background())
}

func TestLanes_LimitChanged_HoldsFromThenOn(t *testing.T) {
	var running atomic.Int32
	gate, entered := make(chan struct{}), make(chan struct{}, 100)
	l := lanes.New(ints, 1, func(context.Context, string, int) (time.Duration, bool) {
		running.Add(1)
		entered <- struct{}{}
		<-gate
		running.Add(-1)
		return 0, true
	})
	l.Start(t.Context())
	for i := range 40 {
		l.Add(fmt.Sprint("lane", i), 1)
	}
	<-entered
	l.Limit(4)
	for range 3 {
		<-entered
	}
	if n := running.Load(); n != 4 {
		t.Fatalf("%d run with a limit of 4", n)
	}
	l.Limit(2)
	for range 4 {
		gate <- struct{}{} // those that ran already end
	}
	for range 36 {
		<-entered
		if n := running.Load(); n > 2 {
			t.Errorf("%d run with a limit of 2", n)
		}
		gate <- struct{}{}
	}
	drain(t, l)
}

func TestMap_GivesMemoryBackWhenMostIsGone(t *testing.T) {
	var m lanes.Map[int]
	const most = 50_000
	for i := range most {
		m.Set(fmt.Sprint(i), i)
	}
	for i := range most - 3 {
		m.Delete(fmt.Sprint(i))
	}
	if m.Len() != 3 {
		t.Fatalf("%d are left", m.Len())
	}
	for lane, v := range m.All {
		if got, ok := m.Get(lane); !ok || got != v || lane != fmt.Sprint(v) || v < most-3 {
			t.Errorf("%s has %d", lane, v)
		}
	}
	if _, ok := m.Get("0"); ok {
		t.Error("what was deleted is still there")
	}
	if room := lanes.Room(&m); room > most/8 {
		t.Errorf("it has room for %d still", room)
	}
}

func FuzzNumbers_ComeBackAsTheyWere(f *testing.F) {
	f.Add(int64(0), int64(1))
	f.Add(int64(127), int64(1)<<62)
	f.Fuzz(func(t *testing.T, a, b int64) {
		packed := lanes.Numbers.Append(lanes.Numbers.Append(nil, a), b)
		gotA, size := lanes.Numbers.Next(packed)
		gotB, rest := lanes.Numbers.Next(packed[size:])
		if gotA != a || gotB != b || size+rest != len(packed) {
			t.Errorf("%d and %d came back as %d and %d", a, b, gotA, gotB)
		}
	})
}

func TestLanes_HurriedLane_ComesBeforeAllThatAreReady(t *testing.T) {
	for _, hurried := range []string{"first", "middle", "last"} {
		t.Run(hurried, func(t *testing.T) {
			var order []string
			var left sync.WaitGroup
			left.Add(6)
			l := lanes.New(ints, 1, func(_ context.Context, lane string, _ int) (time.Duration, bool) {
				defer left.Done()
				order = append(order, lane)
				return 0, true
			})
			for _, lane := range []string{"first", "middle", "last"} {
				l.Add(lane, 1, 2)
			}
			l.Hurry(hurried)
			l.Hurry("nobody")
			l.Start(t.Context())
			left.Wait()
			drain(t, l)
			if order[0] != hurried || len(order) != 6 {
				t.Errorf("the order was %v", order)
			}
			rest := map[string]int{}
			for _, lane := range order {
				rest[lane]++
			}
			if rest["first"] != 2 || rest["middle"] != 2 || rest["last"] != 2 {
				t.Errorf("the order was %v", order)
			}
		})
	}
}

func TestBusy_LanesThatWaitForAWorker_AndNotThoseThatWaitForSomethingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := make(chan time.Duration)
		l := lanes.New(ints, 1, func(context.Context, string, int) (time.Duration, bool) {
			wait := <-work
			return wait, wait == 0
		})
		busy := func(want bool, when string) {
			t.Helper()
			if synctest.Wait(); l.Busy() != want {
				t.Errorf("%s it is busy: %v", when, !want)
			}
		}
		busy(false, "empty")
		l.Add("a", 1)
		busy(false, "before there are workers")
		l.Start(t.Context())
		busy(false, "with a worker for its lane")
		l.Add("b", 1)
		busy(true, "with more lanes than workers")
		work <- time.Hour
		busy(false, "while a lane waits for its time")
		work <- 0
		busy(false, "afterwards")
		drain(t, l)
	})
}
