//go:build goolm

package crypto

import (
	"math/rand/v2"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// usualUnread is how many room keys of one user a device of the bridge keeps that have opened nothing yet. A key costs nobody anything to make up, and is kept for
// a year; somebody who writes has one for each room and 100 messages.
const usualUnread = 2000

// unreadPace is how many keys are kept over that, about, before the oldest go.
const unreadPace = 50

// many says so of one call in most, on average: it is not looked at each time whether users have sent too much, and nothing has to be remembered, which somebody
// could make too much of.
func many(most int) bool { return most <= 1 || rand.IntN(most) == 0 }

// boundUnread deletes the oldest keys of a user that have opened nothing when there are too many. It runs in the job that keeps another.
func (m *machine) boundUnread(tx *store.Tx, sender id.UserID) error {
	keep := m.c.mostUnread
	if !many(min(keep/10, unreadPace)) {
		return nil
	}
	if err := tx.DeleteUnreadKeys(m.account(), string(sender), keep); err != nil {
		return err
	}
	return tx.DeleteUnreadKeys(copyFrom(m.account(), sender), string(sender), keep)
}
