package appservice

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// Refusals that have nothing to do with each other say nothing of how fast requests may go.
func TestRateLimit_RefusalLongAfterAnother_SetsNoPaceByTheTimeBetween(t *testing.T) {
	for name, user := range map[string]string{"of a ghost": "a ghost's", "in front of the homeserver": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := limitBody
				if user == "" {
					body = "<html>slow down</html>"
				}
				b := &bucket{each: 2 * time.Second, burst: 10}
				l := newLimited(t, func(req *http.Request) *http.Response {
					resp := b.answer(req)
					if resp.StatusCode == http.StatusTooManyRequests {
						return answered(429, "2", body)
					}
					return resp
				})
				say := func() bool {
					status, wait := l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/1", ghostA)
					if wait > 10*time.Second {
						t.Fatalf("held for %v by a homeserver that has room for one every 2 seconds", wait)
					}
					time.Sleep(wait)
					return status == 200
				}
				for range 3 {
					for sent := 0; sent < 11; {
						if say() {
							sent++
						}
					}
					time.Sleep(time.Hour)
				}
			})
		})
	}
}
