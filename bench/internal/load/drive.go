package load

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Result is what one run of [Drive] saw.
type Result struct {
	Transactions int
	Events       int
	Elapsed      time.Duration
	latencies    []time.Duration // in ascending order
}

// EventsPerSecond is the rate of acknowledged events.
func (r *Result) EventsPerSecond() float64 { return float64(r.Events) / r.Elapsed.Seconds() }

// Latency gives a quantile (0 to 1) of the time from sending a transaction to its answer.
func (r *Result) Latency(quantile float64) time.Duration { return Quantile(r.latencies, quantile) }

// Quantile gives a quantile (0 to 1) of values in ascending order, 0 when there are none.
func Quantile(ascending []time.Duration, quantile float64) time.Duration {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[min(int(quantile*float64(len(ascending))), len(ascending)-1)]
}

// Drive sends transactions of so many events for so long, the next when the one before was acknowledged.
func Drive(ctx context.Context, conn *Conn, g *Generator, events int, length time.Duration) (*Result, error) {
	r := &Result{}
	begin := time.Now()
	last := begin
	for last.Sub(begin) < length && ctx.Err() == nil {
		request := g.Transaction(events)
		last = time.Now()
		if err := conn.Send(request); err != nil {
			return nil, err
		}
		answered := time.Now()
		r.latencies = append(r.latencies, answered.Sub(last))
		r.Transactions++
		r.Events += events
		last = answered
	}
	r.Elapsed = last.Sub(begin)
	slices.Sort(r.latencies)
	if r.Transactions == 0 {
		return nil, fmt.Errorf("nothing was sent: %w", context.Cause(ctx))
	}
	return r, nil
}
