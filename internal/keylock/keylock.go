// Package keylock has a lock for each key.
package keylock

import (
	"context"
	"sync"
)

// Map is a lock for each key, for as long as somebody holds or wants it. Waiting for it ends with the context.
type Map struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the key is free again
}

// Lock waits until the key is free, or ctx ends, and gives what frees it again.
func (l *Map) Lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		busy, taken := l.held[key]
		if !taken {
			free := make(chan struct{})
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			l.held[key] = free
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(free)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
