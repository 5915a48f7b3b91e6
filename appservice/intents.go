package appservice

import (
	"runtime"
	"sync"
	"weak"

	"maunium.net/go/mautrix/id"
)

// recentIntents is how many intents are kept at least, after they were used, and half of how many at most.
const recentIntents = 2048

// intents has one intent for each user that is in use: two would not see what the other wrote. One that nobody holds any
// more stays for a while, with what it knows of its user; then it goes, and is read from the store when it is needed again.
type intents struct {
	mu     sync.Mutex
	all    map[id.UserID]weak.Pointer[Intent]
	recent map[id.UserID]*Intent // used since the last change of generations
	before map[id.UserID]*Intent // used before that
}

// of gives the intent of a user, made by make if there is none.
func (is *intents) of(user id.UserID, make func() *Intent) *Intent {
	is.mu.Lock()
	defer is.mu.Unlock()
	if i := is.recent[user]; i != nil {
		return i
	}
	i := is.all[user].Value()
	if i == nil {
		i = make()
		is.all[user] = weak.Make(i)
		runtime.AddCleanup(i, is.gone, user)
	}
	if len(is.recent) >= recentIntents {
		is.before, is.recent = is.recent, map[id.UserID]*Intent{}
	}
	is.recent[user] = i
	return i
}

// gone forgets a user whose intent was taken away, unless there is a new one.
func (is *intents) gone(user id.UserID) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.all[user].Value() == nil {
		delete(is.all, user)
	}
}
