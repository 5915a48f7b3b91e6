package bridge

import "time"

// setOffline notes what the session last said of itself.
func (b *Bridge) setOffline(offline bool) {
	if !offline {
		b.offline.Store(nil)
		return
	}
	now := time.Now()
	b.offline.CompareAndSwap(nil, &now)
}

// offlineSince is zero while the session is not known to be offline.
func (b *Bridge) offlineSince() time.Time {
	if at := b.offline.Load(); at != nil {
		return *at
	}
	return time.Time{}
}
