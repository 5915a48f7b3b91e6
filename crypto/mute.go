//go:build goolm

package crypto

import (
	"sync"
	"time"

	"maunium.net/go/mautrix/id"
)

// A server may have any number of users, and be silent about the devices of each: what they write holds up its room while the homeserver waits. So it is noted of the server: some of
// its users are asked for, and then one in a while.

// mutes are servers that did not answer. What is remembered is bounded as with [seldom].
type mutes struct {
	mu  sync.Mutex
	all map[string]*pace
}

// note notes that a server was waited for in vain.
func (m *mutes) note(server string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.all[server]
	if p == nil {
		if m.all == nil || len(m.all) >= seldomMost {
			m.all = make(map[string]*pace)
		}
		p = &pace{atOnce: whoseAtOnce, every: whoseEvery}
		m.all[server] = p
	}
	p.may(now)
}

// mute says whether a server was waited for in vain as often as it may be for now.
func (m *mutes) mute(server string, now time.Time) bool {
	m.mu.Lock()
	p := m.all[server]
	m.mu.Unlock()
	return p != nil && p.full(now)
}

// hasFailed says whether the answer names a user's server as one that did not answer.
func (a *answer) hasFailed(user id.UserID) bool {
	_, failed := a.failures[user.Homeserver()]
	return failed
}
