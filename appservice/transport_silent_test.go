package appservice

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// stalled is the body of an answer of which nothing more comes.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
func (stalled) Close() error { return nil }

// Whoever reads an answer holds locks that others wait for.
func TestAnswer_OfWhichNothingMoreComes_IsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, path := range []string{"rooms/!r/state", "register"} {
			l := newLimited(t, func(req *http.Request) *http.Response {
				resp := answered(200, "", "")
				resp.Body = stalled{req.Context()}
				return resp
			})
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://hs.test/_matrix/client/v3/"+path+"?user_id="+string(ghostA), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer x")
			begin := time.Now()
			resp, err := l.tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err == nil || time.Since(begin) > 10*time.Minute {
				t.Errorf("%s: %v after %v", path, err, time.Since(begin))
			}
			_ = resp.Body.Close()
		}
	})
}
