//go:build goolm

package crypto

import (
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// usualUnread is how many room keys of one user a device of the bridge keeps that have opened nothing yet. A key costs nobody anything to make up, and is kept for
// a year; somebody who writes has one for each room and 100 messages.
const usualUnread = 500

// arrivals counts what users have sent, so that it is not looked at each time which of it is too much. What it remembers is bounded as with seldom.
type arrivals struct {
	mu sync.Mutex
	of map[string]int
}

// many says whether so many have come since it has last said so.
func (a *arrivals) many(name string, most int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil || len(a.of) >= seldomMost {
		a.of = make(map[string]int)
	}
	a.of[name]++
	if a.of[name] < most {
		return false
	}
	delete(a.of, name)
	return true
}

// boundUnread deletes the oldest keys of a user that have opened nothing when there are too many, to within a tenth. It runs in the job that keeps another.
func (m *machine) boundUnread(tx *store.Tx, sender id.UserID) error {
	keep := m.c.mostUnread
	if !m.c.came.many("key "+m.account()+" "+string(sender), max(keep/10, 1)) {
		return nil
	}
	if err := tx.DeleteUnreadKeys(m.account(), string(sender), keep); err != nil {
		return err
	}
	return tx.DeleteUnreadKeys(copyFrom(m.account(), sender), string(sender), keep)
}
