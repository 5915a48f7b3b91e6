package proxy

import (
	"math"
	"sync"
	"time"
)

// Rate is how much may be had in a minute. What was not used for a minute may be had at once.
type Rate struct {
	Requests int   // 0: the default; negative: no limit
	Bytes    int64 // 0: the default; negative: no limit. An answer that has begun is finished, and counts against what comes after
}

// Rates bound what is served. Who is over one of them is told 429, and when to come back.
type Rates struct {
	Reader Rate // of one address (IPv6: one /64); 600 requests, 4 GiB
	Room   Rate // of one room; 6,000 requests, 20 GiB
	Media  Rate // of one file; 6,000 requests, 20 GiB
	All    Rate // of all together; 12,000 requests, 60 GiB
}

func (r Rates) withDefaults() Rates {
	for _, d := range []struct {
		to       *Rate
		requests int
		gib      int64
	}{{&r.Reader, 600, 4}, {&r.Room, 6000, 20}, {&r.Media, 6000, 20}, {&r.All, 12000, 60}} {
		d.to.Requests = or(d.to.Requests, d.requests)
		d.to.Bytes = or(d.to.Bytes, d.gib<<30)
	}
	return r
}

// maxBuckets bounds what one meter remembers. Whoever has many addresses can wash a bucket out by it, and is still held by the other meters.
const maxBuckets = 1 << 14

// meter counts what was had under each key. Its buckets fill up by themselves; one that is full is forgotten.
type meter struct {
	requests, bytes float64 // in a second; 0: no limit
	now             func() time.Time

	mu      sync.Mutex
	buckets map[string]*bucket
	sweepAt int // number of buckets at which the full ones are looked for
}

// bucket holds what may still be had. bytes may be below zero: the size of an answer is known when it has been sent.
type bucket struct {
	requests, bytes float64
	at              time.Time
}

func newMeter(r Rate, now func() time.Time) *meter {
	m := &meter{now: now, buckets: make(map[string]*bucket), sweepAt: 256}
	m.requests, m.bytes = float64(max(r.Requests, 0))/60, float64(max(r.Bytes, 0))/60
	return m
}

func (m *meter) unlimited() bool { return m.requests == 0 && m.bytes == 0 }

// take takes one request, or says how long until there is one.
func (m *meter) take(key string) (wait time.Duration) {
	if m.unlimited() {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.bucket(key)
	switch {
	case m.requests > 0 && b.requests < 1:
		return seconds((1 - b.requests) / m.requests)
	case m.bytes > 0 && b.bytes <= 0:
		return seconds((1 - b.bytes) / m.bytes)
	}
	b.requests--
	return 0
}

// spend counts bytes that were sent.
func (m *meter) spend(key string, n int64) {
	if m.bytes == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bucket(key).bytes -= float64(n)
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 3600) * float64(time.Second))
}

func (m *meter) bucket(key string) *bucket {
	now := m.now()
	b := m.buckets[key]
	if b == nil {
		m.makeRoom(now)
		b = &bucket{requests: m.requests * 60, bytes: m.bytes * 60, at: now}
		m.buckets[key] = b
		return b
	}
	m.fill(b, now)
	return b
}

func (m *meter) fill(b *bucket, now time.Time) {
	passed := max(now.Sub(b.at).Seconds(), 0)
	b.requests = min(b.requests+passed*m.requests, m.requests*60)
	b.bytes = min(b.bytes+passed*m.bytes, m.bytes*60)
	b.at = now
}

// makeRoom forgets the buckets that are full, and when there are still too many a quarter of them, so that the next ones cost no sweep each.
func (m *meter) makeRoom(now time.Time) {
	if len(m.buckets) < m.sweepAt {
		return
	}
	for key, b := range m.buckets {
		if m.fill(b, now); b.requests >= m.requests*60 && b.bytes >= m.bytes*60 {
			delete(m.buckets, key)
		}
	}
	if len(m.buckets) > maxBuckets*3/4 {
		for key := range m.buckets {
			if len(m.buckets) <= maxBuckets*3/4 {
				break
			}
			delete(m.buckets, key)
		}
	}
	m.sweepAt = min(max(2*len(m.buckets), 256), maxBuckets)
}

// meters are those of a server, each with the name that the metrics have for it.
type meters struct{ reader, room, media, all *meter }

func newMeters(r Rates, now func() time.Time) *meters {
	r = r.withDefaults()
	return &meters{newMeter(r.Reader, now), newMeter(r.Room, now), newMeter(r.Media, now), newMeter(r.All, now)}
}

// admit counts a request by its reader, before anything is looked up for it.
func (m *meters) admit(x *exchange) (wait time.Duration, limit string) {
	if wait = m.reader.take(x.reader.String()); wait > 0 {
		return wait, "reader"
	}
	return m.all.take(""), "all"
}

// admitTo counts it by what it is for, once that is known.
func (m *meters) admitTo(t *target) (wait time.Duration, limit string) {
	if t.room != "" {
		if wait = m.room.take(t.room); wait > 0 {
			return wait, "room"
		}
	}
	return m.media.take(t.counted), "media"
}

func (m *meters) spend(x *exchange, t *target, n int64) {
	m.reader.spend(x.reader.String(), n)
	m.all.spend("", n)
	if t.room != "" {
		m.room.spend(t.room, n)
	}
	m.media.spend(t.counted, n)
}

// waitSeconds is a Retry-After: whole seconds, at least one.
func waitSeconds(d time.Duration) int { return max(int(math.Ceil(d.Seconds())), 1) }
