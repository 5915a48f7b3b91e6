package crypto

import (
	"sync"
	"time"
)

// backoff lets something be done for the same name again only after a wait, which is twice as long each time. What it remembers is bounded as with seldom.
type backoff struct {
	first, most time.Duration

	mu    sync.Mutex
	names map[string]attempt
}

type attempt struct {
	at   time.Time
	wait time.Duration // before the next
}

// may says whether it may be done now, and takes it as done.
func (b *backoff) may(name string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, known := b.names[name]
	if known && now.Sub(before.at) < before.wait {
		return false
	}
	if b.names == nil || len(b.names) >= seldomMost {
		b.names = make(map[string]attempt)
	}
	b.names[name] = before.next(now, b.first, b.most)
	return true
}

// next is the attempt now, after the one before. Who was quiet for as long as the longest wait beyond his own begins anew.
func (a attempt) next(now time.Time, first, most time.Duration) attempt {
	if a.wait == 0 || now.Sub(a.at) >= a.wait+most {
		return attempt{now, first}
	}
	return attempt{now, min(2*a.wait, most)}
}

// forget takes back that it was done.
func (b *backoff) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.names, name)
}

// pace lets something be done so often at once, and then once in a while, whoever wants it.
type pace struct {
	atOnce float64
	every  time.Duration

	mu   sync.Mutex
	used float64
	at   time.Time
}

func (p *pace) may(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used, p.at = p.left(now), now
	if p.used+1 > p.atOnce {
		return false
	}
	p.used++
	return true
}

// full says whether it may not be done now.
func (p *pace) full(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left(now)+1 > p.atOnce
}

func (p *pace) left(now time.Time) float64 {
	return max(0, p.used-float64(now.Sub(p.at))/float64(p.every))
}
