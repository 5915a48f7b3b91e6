package bridgetest

import (
	"net/url"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"
)

// Request is one request that the homeserver answered.
type Request struct {
	Time       time.Time
	Method     string
	Path       string // as it came, escapes included
	Query      url.Values
	User       id.UserID   // who it was made as; empty when it was refused before that was known
	Device     id.DeviceID // the device it was made as
	AppService string      // the appservice whose token it carried
	Status     int         // 0: the answer never left
}

// keptRequests bounds the memory of a homeserver that runs for long.
const keptRequests = 100_000

type requestLog struct {
	mu   sync.Mutex
	list []Request
}

func (l *requestLog) add(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= keptRequests {
		l.list = append(l.list[:0], l.list[keptRequests/2:]...)
	}
	l.list = append(l.list, r)
}

// Requests returns the answered requests that the filter accepts, in the order of their answers; nil accepts all. Only
// the newest (at least 50,000) are kept.
func (hs *Homeserver) Requests(filter func(Request) bool) []Request {
	hs.log.mu.Lock()
	defer hs.log.mu.Unlock()
	var out []Request
	for _, r := range hs.log.list {
		if filter == nil || filter(r) {
			out = append(out, r)
		}
	}
	return out
}

// Devices returns the IDs of a user's devices, sorted.
func (hs *Homeserver) Devices(user id.UserID) []id.DeviceID {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	acc := hs.accounts[string(user)]
	if acc == nil {
		return nil
	}
	var out []id.DeviceID
	for _, d := range acc.deviceIDs() {
		out = append(out, id.DeviceID(d))
	}
	return out
}

// Registered tells whether a user exists.
func (hs *Homeserver) Registered(user id.UserID) bool {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	acc := hs.accounts[string(user)]
	return acc != nil && acc.registered
}

// Logins returns how many access tokens of a user are good: one for each login that has not ended.
func (hs *Homeserver) Logins(user id.UserID) (n int) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for _, s := range hs.tokens {
		if s.account.id == string(user) {
			n++
		}
	}
	return n
}
