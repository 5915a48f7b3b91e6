package appservice

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type closing struct {
	*strings.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// net/http leaves it to the transport to close what a request sends, whatever becomes of it.
func TestRateLimit_RequestThatEndsWhileItWaits_ClosesItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, limitedUser(ghostA, time.Now().Add(time.Hour), "20"))
		l.request(t.Context(), "GET", "devices", ghostA)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		body := &closing{Reader: strings.NewReader("x")}
		req, err := http.NewRequestWithContext(ctx, "POST", "http://hs.test/_matrix/media/v3/upload?user_id="+string(ghostA), body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer x")
		if _, err := l.tr.RoundTrip(req); err == nil || !body.closed {
			t.Errorf("%v, closed: %v", err, body.closed)
		}
	})
}
