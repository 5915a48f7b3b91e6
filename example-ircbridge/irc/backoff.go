package irc

import (
	"math/rand/v2"
	"time"
)

// backoff is how long to wait before the next attempt: twice as long each time, up to max, and by chance half to one and a
// half of that, so that many clients of one server do not come back at once.
type backoff struct {
	first, max time.Duration
	failures   int
}

func (b *backoff) next() time.Duration {
	wait := b.max
	if b.failures < 30 {
		wait = min(b.max, b.first<<b.failures)
	}
	if wait <= 0 {
		wait = b.max
	}
	b.failures++
	return wait/2 + rand.N(wait+1)
}

// worst makes the next wait the longest.
func (b *backoff) worst() { b.failures = 30 }

func (b *backoff) reset() { b.failures = 0 }
