package bridgetest

import (
	"slices"
	"sync"
	"time"
)

// Clock is a clock that the test turns. A homeserver that has one reads it for everything that it does by time: the pauses
// between retries, rate limits, the life of access tokens, the end of typing, the delays of faults and the timestamps of
// events. What waits for somebody on the other end of a connection (/sync, media that is not uploaded yet, the headers of an
// appservice's answer) stays on real time. The nil Clock is real time.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	alarms []*alarm
}

// alarm is something that happens once, at a time.
type alarm struct {
	at   time.Time
	ring func()
	real *time.Timer // of the nil Clock
}

// NewClock makes a clock that stands at the present time until [Clock.Advance].
func NewClock() *Clock { return &Clock{now: time.Now()} }

// Now is what the clock shows.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance turns the clock on. What becomes due is begun in its order, each at its time; it need not have ended when Advance
// returns. It panics on the nil Clock, which nobody can turn.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for {
		var next *alarm
		for _, a := range c.alarms {
			if !a.at.After(end) && (next == nil || a.at.Before(next.at)) {
				next = a
			}
		}
		if next == nil {
			break
		}
		c.alarms = slices.DeleteFunc(c.alarms, func(a *alarm) bool { return a == next })
		if next.at.After(c.now) {
			c.now = next.at
		}
		c.mu.Unlock()
		next.ring()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// at calls ring at a time, and at once, in a goroutine of its own, when that is over.
func (c *Clock) at(when time.Time, ring func()) *alarm {
	a := &alarm{at: when, ring: ring}
	if c == nil {
		a.real = time.AfterFunc(time.Until(when), ring)
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if when.After(c.now) {
		c.alarms = append(c.alarms, a)
	} else {
		go ring()
	}
	return a
}

// cancel makes an alarm that has not rung never ring.
func (c *Clock) cancel(a *alarm) {
	if c == nil {
		a.real.Stop()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarms = slices.DeleteFunc(c.alarms, func(b *alarm) bool { return a == b })
}

// until returns what is closed at a time, and what gives up waiting for it.
func (c *Clock) until(when time.Time) (due <-chan struct{}, stop func()) {
	ch := make(chan struct{})
	a := c.at(when, func() { close(ch) })
	return ch, func() { c.cancel(a) }
}

func (hs *Homeserver) now() int64 { return hs.opts.Clock.Now().UnixMilli() }
