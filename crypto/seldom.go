package crypto

import (
	"sync"
	"time"
)

// seldom lets something be done for the same thing only once in a while. What it remembers is bounded: when there is too much, all of it is forgotten.
type seldom struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// seldomMost is how much is remembered.
const seldomMost = 10_000

// may says whether it may be done now, and takes it as done.
func (s *seldom) may(what string, every time.Duration, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, done := s.last[what]; done && now.Sub(at) < every {
		return false
	}
	if s.last == nil || len(s.last) >= seldomMost {
		s.last = make(map[string]time.Time)
	}
	s.last[what] = now
	return true
}

// lately says whether it was done within that time.
func (s *seldom) lately(what string, within time.Duration, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, done := s.last[what]
	return done && now.Sub(at) < within
}

// forget takes back that it was done.
func (s *seldom) forget(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, what)
}
