package appservice

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A homeserver that does not answer registrations holds those who wait for their turn; not the workers of the outbox, who
// have other rooms to see to.
func TestRateLimit_ImpatientCallersBehindARegistrationThatHangs_GoOnSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil)
		l.tr.base = roundTripper(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		var all sync.WaitGroup
		all.Go(func() { l.request(t.Context(), "POST", "register", "@irc_other:hs.test") }) // has the turn
		synctest.Wait()
		begin := time.Now()
		for range 20 {
			all.Go(func() {
				status, wait := l.request(Impatient(t.Context()), "POST", "register", ghostA)
				if took := time.Since(begin); status != http.StatusTooManyRequests || wait != turnPatience || took != turnPatience {
					t.Errorf("after %v: %d, to come again in %v", took, status, wait)
				}
			})
		}
		all.Wait()
	})
}
