package proxy

import (
	"sync"
	"time"
)

// remembers is what a store says of its own process's revocations; *store.Store does. Only where somebody says so is anything remembered.
type remembers interface {
	// MediaRevocationsMade counts the commits of this process that revoked links, each before the commit returns.
	MediaRevocationsMade() uint64
}

// memo remembers for a moment what short links lead to. What this process revokes is forgotten at once, and what others revoke within watchEvery.
type memo struct {
	made func() uint64 // nil: nothing is remembered

	mu    sync.RWMutex
	known map[memoKey]memory
}

type memoKey struct {
	record  int64
	purpose purpose
}

type memory struct {
	target *target
	made   uint64 // revocations when it was read
	read   time.Time
}

// maxMemo bounds what is remembered.
const maxMemo = 1024

// now is the mark of what is read from now on.
func (m *memo) now() memory {
	if m.made == nil {
		return memory{}
	}
	return memory{made: m.made(), read: time.Now()}
}

func (m *memo) get(c *claims) *target {
	if m.made == nil {
		return nil
	}
	m.mu.RLock()
	known, ok := m.known[memoKey{c.record, c.purpose}]
	m.mu.RUnlock()
	if !ok || known.made != m.made() || time.Since(known.read) >= watchEvery {
		return nil
	}
	return known.target
}

// put remembers a target that was read after at was taken, so that a revocation in between is not missed.
func (m *memo) put(c *claims, at memory, t *target) {
	if m.made == nil {
		return
	}
	at.target = t
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxMemo {
		m.known = make(map[memoKey]memory)
	}
	m.known[memoKey{c.record, c.purpose}] = at
}

// forget forgets everything: keys of encrypted files, above all, do not stay in memory for long.
func (m *memo) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.known)
}
