package bridge

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"maunium.net/go/mautrix"
)

// Waits that are too long for the client that makes the requests are the caller's.
func TestUninstall_LongRateLimit_IsWaitedForAndAskedAgain(t *testing.T) {
	limited := mautrix.HTTPError{Response: &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"0.001"}}}}
	asked := 0
	err := patiently(t.Context(), func() error {
		if asked++; asked < 3 {
			return limited
		}
		return nil
	})
	if err != nil || asked != 3 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	refused := errors.New("no")
	if err := patiently(t.Context(), func() error { asked++; return refused }); !errors.Is(err, refused) || asked != 4 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := patiently(stopped, func() error { asked++; return limited }); err == nil || asked != 5 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
