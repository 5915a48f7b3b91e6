package irc

import "time"

// bucket is a token bucket: burst lines at once, then one in each interval.
type bucket struct {
	burst    int
	interval time.Duration
	used     time.Duration // of burst × interval,
	at       time.Time     // at this time
}

// wait is how long it takes until there is a token; 0 means now.
func (b *bucket) wait(now time.Time) time.Duration {
	b.used = max(0, b.used-now.Sub(b.at))
	b.at = now
	return max(0, b.used+b.interval-time.Duration(b.burst)*b.interval)
}

// take takes a token.
func (b *bucket) take(now time.Time) {
	b.wait(now)
	b.used += b.interval
}

// giveBack returns a token that was not used.
func (b *bucket) giveBack() { b.used = max(0, b.used-b.interval) }

// half reports whether more than half of the tokens are there.
func (b *bucket) half(now time.Time) bool {
	b.wait(now)
	return b.used*2 < time.Duration(b.burst)*b.interval
}
