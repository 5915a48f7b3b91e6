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

// unread counts the room keys that users have sent, so that it is not looked at each which of them have opened something. What it remembers is bounded as with
// seldom.
type unread struct {
	mu   sync.Mutex
	came map[string]int
}

// many says whether so many keys have come since it has last said so.
func (u *unread) many(name string, most int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.came == nil || len(u.came) >= seldomMost {
		u.came = make(map[string]int)
	}
	u.came[name]++
	if u.came[name] < most {
		return false
	}
	delete(u.came, name)
	return true
}

// boundUnread deletes the oldest keys of a user that have opened nothing when there are too many, to within a tenth. It runs in the job that keeps another.
func (m *machine) boundUnread(tx *store.Tx, sender id.UserID) error {
	keep := m.c.mostUnread
	if !m.c.unread.many(m.account()+" "+string(sender), max(keep/10, 1)) {
		return nil
	}
	if err := tx.DeleteUnreadKeys(m.account(), string(sender), keep); err != nil {
		return err
	}
	return tx.DeleteUnreadKeys(copyFrom(m.account(), sender), string(sender), keep)
}
