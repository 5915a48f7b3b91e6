package appservice

import (
	"net/http"
	"sync/atomic"
)

// absence is whether the homeserver can be reached, as requests show. One that was away may have lost what it had to tell.
type absence struct {
	away    atomic.Bool
	returns atomic.Int64
}

// failed notes a request that came to no answer.
func (a *absence) failed() { a.away.Store(true) }

// answered notes an answer: of a proxy before the homeserver, which has nothing behind it, or of the homeserver itself.
func (a *absence) answered(status int, matrix bool) {
	switch {
	case !matrix && (status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout):
		a.failed()
	case a.away.CompareAndSwap(true, false):
		a.returns.Add(1)
	}
}

// HomeserverReturns tells how often since the start the homeserver has answered again after requests had come to no answer. What happened to it
// meanwhile nobody has told the bridge.
func (as *AppService) HomeserverReturns() int64 { return as.absence.returns.Load() }
