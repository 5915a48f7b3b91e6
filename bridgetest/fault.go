package bridgetest

import (
	"net/http"
	"regexp"
	"sync"
	"time"
)

// Fault is something that goes wrong with the next requests that match.
type Fault struct {
	Method string         // empty: any
	Path   *regexp.Regexp // matched against the path as it came; nil: any
	Times  int            // how many requests it hits; 0 is 1, negative is all
	// Delay is waited, on the homeserver's clock, before anything else.
	Delay time.Duration
	// Status, when set, is the answer, with ErrCode ("M_UNKNOWN" when empty); the request has no effect.
	Status     int
	ErrCode    string
	RetryAfter time.Duration // retry_after_ms and Retry-After of a 429
	// Drop closes the connection without an answer; with DropAfter the request takes effect first.
	Drop      bool
	DropAfter bool
	// CutAnswer lets the request take effect and breaks the connection in the middle of the answer's body.
	CutAnswer bool
}

type faults struct {
	mu         sync.Mutex
	list       []*Fault
	intercepts []*func(http.ResponseWriter, *http.Request) bool
}

// Fault makes the next requests that match go wrong. Faults are tried in the order they were added.
func (hs *Homeserver) Fault(f Fault) {
	if f.Times == 0 {
		f.Times = 1
	}
	hs.faults.mu.Lock()
	defer hs.faults.mu.Unlock()
	hs.faults.list = append(hs.faults.list, &f)
}

// Intercept lets fn see every request first; when it returns true it has answered and nothing else happens. The
// returned function takes it away again.
func (hs *Homeserver) Intercept(fn func(http.ResponseWriter, *http.Request) bool) (remove func()) {
	hs.faults.mu.Lock()
	defer hs.faults.mu.Unlock()
	p := &fn
	hs.faults.intercepts = append(hs.faults.intercepts, p)
	return func() {
		hs.faults.mu.Lock()
		defer hs.faults.mu.Unlock()
		for i, have := range hs.faults.intercepts {
			if have == p {
				hs.faults.intercepts = append(hs.faults.intercepts[:i:i], hs.faults.intercepts[i+1:]...)
				return
			}
		}
	}
}

func (f *faults) interceptors() []*func(http.ResponseWriter, *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*func(http.ResponseWriter, *http.Request) bool(nil), f.intercepts...)
}

// take returns the fault that hits this request, if one does.
func (f *faults) take(r *http.Request) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.list {
		if fault.Method != "" && fault.Method != r.Method || fault.Path != nil && !fault.Path.MatchString(r.URL.EscapedPath()) {
			continue
		}
		if fault.Times > 0 {
			fault.Times--
			if fault.Times == 0 {
				f.list = append(f.list[:i:i], f.list[i+1:]...)
			}
		}
		return fault
	}
	return nil
}
