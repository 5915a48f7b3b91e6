package appservice

import (
	"errors"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

// laterWait is how long a lane waits at most because of [Later].
const laterWait = 30 * time.Second

type laterError struct {
	error
	wait  time.Duration
	doubt bool
}

func (e laterError) Unwrap() error { return e.error }

// Later marks an error of a handler as "not now": whatever the event needs is not there at the moment (the network is
// not connected, say), which is no fault of the event. The attempt is not counted, and the event never becomes a dead
// letter because of it, however often that happens. A mark that [Event.Doubt] set in this attempt is cleared: nothing
// has left. The lane waits for 30 s, or until [AppService.Wake], and holds no worker meanwhile.
//
// Later returns nil for nil. An error that is marked by [Permanent] as well is permanent.
func Later(err error) error {
	if err == nil {
		return nil
	}
	return laterError{error: err, wait: laterWait}
}

// LaterInDoubt is [Later] for an event of which it is not known whether it was done: it stays in doubt.
func LaterInDoubt(err error) error {
	if err == nil {
		return nil
	}
	return laterError{err, laterWait, true}
}

func staysInDoubt(err error) bool {
	var l laterError
	return errors.As(err, &l) && l.doubt
}

// LaterIn is [Later] with another time that the lane waits at most.
func LaterIn(wait time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return laterError{error: err, wait: wait}
}

// LaterWait says how long to wait because of an error that was marked by [Later] or [LaterIn]; 0: it was not.
func LaterWait(err error) time.Duration {
	var l laterError
	if !errors.As(err, &l) || IsPermanent(err) {
		return 0
	}
	return max(l.wait, 1)
}

// Wake ends the waiting of every lane that waits because of [Later]: what they waited for is there. Lanes that wait
// because an event failed are left alone. A handler that is under way and ends with Later after Wake is called again at
// once, so that whoever calls Wake after the change misses no lane.
func (as *AppService) Wake() {
	for _, lane := range as.later.wake() {
		as.lanes.Wake(lane)
	}
}

// laterLanes are the lanes that wait because of Later.
type laterLanes struct {
	mu    sync.Mutex
	lanes lanes.Map[struct{}]
	wakes uint64 // how often wake was called
}

func (l *laterLanes) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wakes
}

// add notes a lane whose handler began when wake had been called that often, and gives the time that it waits: wait at most.
func (l *laterLanes) add(lane string, wakes uint64, wait time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wakes != wakes {
		return 0
	}
	l.lanes.Set(lane, struct{}{})
	return wait
}

func (l *laterLanes) forget(lane string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes.Delete(lane)
}

func (l *laterLanes) wake() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakes++
	list := make([]string, 0, l.lanes.Len())
	for lane := range l.lanes.All {
		list = append(list, lane)
	}
	l.lanes = lanes.Map[struct{}]{}
	return list
}

// postpone ends an attempt that does not count, in which nothing has left, as far as the handler knows.
func (b *batch) postpone(s step, cause error) {
	doubt := s.ev.InDoubt && !s.ev.doubted || staysInDoubt(cause)
	if doubt || s.ev.doubted {
		err := b.flush(func(tx *store.Tx) error { return tx.Postpone(b.lane, s.ref, causeText(cause), doubt) })
		if err != nil {
			b.culprit, doubt = nil, true // as it stands in the store
		}
	}
	b.as.heads.set(b.lane, head{attempts: s.ev.Attempts, doubt: doubt})
}
