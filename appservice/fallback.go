package appservice

import (
	"sync"
	"time"
)

// lacksFor is how long an endpoint that a homeserver does not have is not asked for again.
const lacksFor = time.Hour

// fallbacks remembers what the homeserver has answered M_UNRECOGNIZED for, so that the older endpoint is taken at once.
// Synapse's versions do not tell what it has.
type fallbacks struct {
	mu    sync.Mutex
	lacks map[string]time.Time // until when
}

// withFallback makes a request, and the fallback's instead where the homeserver does not have the endpoint. What there is
// not, or may not be seen, at an endpoint that is there is no reason to ask another one.
func (e *fallbacks) withFallback(endpoint string, request, fallback func() error) error {
	e.mu.Lock()
	lacks := time.Now().Before(e.lacks[endpoint])
	e.mu.Unlock()
	if lacks {
		return fallback()
	}
	err := request()
	if !isUnsupported(err) {
		return err
	}
	e.mu.Lock()
	if e.lacks == nil {
		e.lacks = make(map[string]time.Time)
	}
	e.lacks[endpoint] = time.Now().Add(lacksFor)
	e.mu.Unlock()
	return fallback()
}
