package appservice

import (
	"net/http"
	"sync/atomic"
	"time"
)

// absence is whether the homeserver can be reached, as requests show. One that was away may have lost what it had to tell.
type absence struct {
	away    atomic.Bool
	last    atomic.Int64 // when it answered last, in milliseconds
	returns atomic.Int64
	// returned is told when it had answered last.
	returned func(last time.Time)
}

// absentFor is how long nothing of a homeserver may have answered: else it is one broken connection, or one service of several that has nothing to do with keys.
const absentFor = 3 * time.Second

// failed notes a request that came to no answer.
func (a *absence) failed() { a.away.Store(true) }

// answered notes an answer: of a proxy before the homeserver, which has nothing behind it, or of the homeserver itself.
func (a *absence) answered(status int, matrix bool) {
	switch {
	case !matrix && (status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout):
		a.failed()
	default:
		now := time.Now().UnixMilli()
		if last := a.last.Swap(now); a.away.Swap(false) && now-last >= absentFor.Milliseconds() {
			a.returns.Add(1)
			a.returned(time.UnixMilli(last))
		}
	}
}

// HomeserverReturns tells how often since the start the homeserver has answered again after requests had come to no answer. What happened to it
// meanwhile nobody has told the bridge.
func (as *AppService) HomeserverReturns() int64 { return as.absence.returns.Load() }

// HomeserverAway says whether the last request has come to no answer: what happens to the homeserver nobody tells the bridge now.
func (as *AppService) HomeserverAway() bool { return as.absence.away.Load() }
