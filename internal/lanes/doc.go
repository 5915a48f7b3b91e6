// Package lanes schedules work by key: in order within a key, in parallel across keys, with a bounded number of workers.
//
// A lane is what waits under one key. It exists only while it has items: an idle scheduler holds no lanes, no timers and
// no goroutines, so 50,000 rooms cost nothing until something is said in them. A lane that has to wait before its head
// is tried again (a backoff) gives its worker back and holds nothing but one timer; every other lane goes on.
//
// What waits is packed: an item takes the few bytes that its [Packing] makes of it, and a lane about 200 bytes besides, so
// that a backlog of a million items in 2,000 lanes stays below 10 MB. What the lanes took is given back when they are gone.
//
// # Goroutines
//
// A worker is a goroutine that takes lanes from one queue, first come first served. Workers start when a lane becomes
// ready, up to the bound, each once the one before has begun, and end when no lane is ready. A lane is in the hands of at most one worker at a time, which
// is all that keeps its order. A lane that still has items after its turn goes to the end of the queue, so that a busy
// lane never starves a quiet one. Timers of waiting lanes only put the lane back into the queue.
//
// # Example
//
//	l := lanes.New(lanes.Numbers, 8, func(ctx context.Context, lane string, n int64) (time.Duration, bool) {
//		if err := send(ctx, lane, n); err != nil {
//			return time.Second, false // again in a second, and nothing else of this lane before
//		}
//		return 0, true
//	})
//	l.Add("room:!a", 1, 2, 3)
//	l.Start(ctx)
//	defer l.Drain(context.Background())
package lanes
