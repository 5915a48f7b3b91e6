package appservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// limited is a transport in front of a homeserver that answers with answer, and what it was asked. It is for bubbles, where
// a minute is a minute.
type limited struct {
	t      *testing.T
	tr     *transport
	quit   chan struct{}
	mu     sync.Mutex
	asked  []string
	counts map[string]int
	answer func(req *http.Request) *http.Response
}

func newLimited(t *testing.T, answer func(req *http.Request) *http.Response) *limited {
	l := &limited{t: t, quit: make(chan struct{}), counts: map[string]int{}, answer: answer}
	count := func(what string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.counts[what]++
	}
	l.tr = &transport{
		log:      zerolog.Nop(),
		limits:   newLimits("@bot:hs.test", l.quit, func(c class, outcome string) { count(string(c) + " " + outcome) }),
		troubles: newTroubles(zerolog.Nop(), count),
		base: roundTripper(func(req *http.Request) (*http.Response, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.asked = append(l.asked, req.Method+" "+req.URL.Query().Get("user_id"))
			return l.answer(req), nil
		}),
	}
	return l
}

func (l *limited) request(ctx context.Context, method, path string, user id.UserID) (status int, retryAfter time.Duration) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://hs.test/_matrix/client/v3/"+path+"?user_id="+string(user), nil)
	if err != nil {
		l.t.Error(err)
		return 0, 0
	}
	req.Header.Set("Authorization", "Bearer x")
	resp, err := l.tr.RoundTrip(req)
	if err != nil {
		return 0, 0
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	retryAfter, _ = askedWait(resp.Header, body)
	return resp.StatusCode, retryAfter
}

func (l *limited) requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

func (l *limited) counted(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[what]
}

func answered(status int, retryAfter, body string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	if retryAfter != "" {
		resp.Header.Set("Retry-After", retryAfter)
	}
	return resp
}

const limitBody = `{"errcode":"M_LIMIT_EXCEEDED","error":"slow down"}`

// limitedUser answers 429 to one user, until then; all else is good.
func limitedUser(user id.UserID, until time.Time, retryAfter string) func(*http.Request) *http.Response {
	return func(req *http.Request) *http.Response {
		if id.UserID(req.URL.Query().Get("user_id")) == user && time.Now().Before(until) {
			return answered(429, retryAfter, limitBody)
		}
		return answered(200, "", "{}")
	}
}

func TestD2_RateLimit_LongerThanHalfAMinuteInAll_IsTheCallersWithItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, func(*http.Request) *http.Response { return answered(429, "14", limitBody) })
		begin := time.Now()
		status, wait := l.request(t.Context(), "GET", "devices", ghostA)
		if status != 429 || wait != 14*time.Second || l.requests() != 3 || time.Since(begin) != 28*time.Second {
			t.Errorf("%d requests in %v, then %d with %v", l.requests(), time.Since(begin), status, wait)
		}
		l = newLimited(t, func(*http.Request) *http.Response { return answered(429, "3600", limitBody) })
		begin = time.Now()
		if status, wait := l.request(t.Context(), "GET", "devices", ghostA); status != 429 || wait != time.Hour || time.Since(begin) != 0 {
			t.Errorf("%d with %v after %v", status, wait, time.Since(begin))
		}
		if status, wait := l.request(t.Context(), "GET", "devices", ghostA); status != 429 || wait != maxHold || l.requests() != 1 {
			t.Errorf("%d with %v after %d requests: an hour was to be cut to ten minutes", status, wait, l.requests())
		}
	})
}

func TestD1_RateLimitThatDoesNotSayHowLong_IsWaitedForLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil)
		l.answer = func(*http.Request) *http.Response {
			if len(l.asked) < 4 {
				return answered(429, "", limitBody)
			}
			return answered(200, "", "{}")
		}
		begin := time.Now()
		if status, _ := l.request(t.Context(), "GET", "devices", ghostA); status != 200 || time.Since(begin) != 7*time.Second {
			t.Errorf("%d after %v, want 1+2+4 s", status, time.Since(begin))
		}
	})
}

func TestRateLimit_OfAGhost_HoldsItsRequestsOfThatClassAndNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, limitedUser(ghostA, time.Now().Add(20*time.Second), "20"))
		send := "rooms/!r/send/m.room.message/t"
		if status, wait := l.request(t.Context(), "PUT", send, ghostA); status != 429 || wait != 20*time.Second {
			t.Fatalf("%d %v", status, wait)
		}
		begin := time.Now()
		for range 10 {
			if status, wait := l.request(t.Context(), "PUT", "rooms/!other/state/m.room.topic/", ghostA); status != 429 || wait != 20*time.Second {
				t.Errorf("%d %v", status, wait)
			}
		}
		if n := l.requests(); n != 1 || l.counted("messages held") != 10 || l.counted("messages refused") != 1 {
			t.Errorf("%d requests were made that were known to be refused: %v", n-1, l.counts)
		}
		for _, user := range []id.UserID{"@irc_b:hs.test", "@bot:hs.test"} {
			if status, _ := l.request(t.Context(), "PUT", send, user); status != 200 || time.Since(begin) != 0 {
				t.Errorf("%s got %d after %v", user, status, time.Since(begin))
			}
		}
		time.Sleep(20 * time.Second)
		if status, _ := l.request(t.Context(), "PUT", send, ghostA); status != 200 {
			t.Errorf("%d after the limit", status)
		}
	})
}

func TestRateLimit_OfTheBot_AndOfRegistrations_HoldAll(t *testing.T) {
	for name, c := range map[string]struct {
		method, path string
		user         id.UserID
	}{
		"the bot's": {"PUT", "rooms/!r/send/m.room.message/t", "@bot:hs.test"}, "a registration's": {"POST", "register", ghostA},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimited(t, limitedUser(c.user, time.Now().Add(time.Hour), "3600"))
				l.request(t.Context(), c.method, c.path, c.user)
				for n := range 100 {
					if status, _ := l.request(t.Context(), c.method, c.path, id.UserID(fmt.Sprintf("@irc_%d:hs.test", n))); status != 429 {
						t.Fatalf("%d", status)
					}
				}
				if n := l.requests(); n != 1 {
					t.Errorf("%d requests", n)
				}
				if status, _ := l.request(t.Context(), "GET", "account/whoami", "@irc_z:hs.test"); status != 200 {
					t.Errorf("another class: %d", status)
				}
			})
		})
	}
}

func TestRateLimit_OfSomethingInFrontOfTheHomeserver_HoldsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, limitedUser(ghostA, time.Now().Add(time.Minute), "60"))
		l.answer = func(*http.Request) *http.Response { return answered(429, "60", "<h1>Too Many Requests</h1>") }
		l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/t", ghostA)
		if status, wait := l.request(t.Context(), "GET", "account/whoami", "@irc_b:hs.test"); status != 429 || wait != time.Minute || l.requests() != 1 {
			t.Errorf("%d %v after %d requests", status, wait, l.requests())
		}
	})
}

// After a limit there is room for one, and all who have waited must not run into it again together.
func TestRateLimit_WhoWaitedGoOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil)
		next := time.Now().Add(2 * time.Second) // room for one in two seconds
		refused := 0
		l.answer = func(*http.Request) *http.Response {
			if wait := time.Until(next); wait > 0 {
				refused++
				return answered(429, fmt.Sprint(wait.Seconds()), limitBody)
			}
			next = time.Now().Add(2 * time.Second)
			return answered(200, "", "{}")
		}
		var all sync.WaitGroup
		done := 0
		for range 10 {
			all.Go(func() {
				if status, _ := l.request(t.Context(), "GET", "devices", ghostA); status == 200 {
					l.mu.Lock()
					done++
					l.mu.Unlock()
				}
			})
		}
		all.Wait()
		// Ten at first, when nobody knew of the limit; then each that passes is followed by one that is refused.
		if done != 10 || refused > 10+10 {
			t.Errorf("%d passed, %d were refused", done, refused)
		}
	})
}

// bucket is a limit as Synapse has it: burst at once, and one in each. It is for the answer of a limited.
type bucket struct {
	each    time.Duration
	burst   int
	full    time.Time
	refused int
}

func (b *bucket) answer(*http.Request) *http.Response {
	now := time.Now()
	if b.full.Before(now) {
		b.full = now
	}
	if wait := b.full.Add(-b.each * time.Duration(b.burst-1)).Sub(now); wait > 0 {
		b.refused++
		return answered(429, fmt.Sprint(int(wait/time.Second)+1), limitBody)
	}
	b.full = b.full.Add(b.each)
	return answered(200, "", "{}")
}

// Each comes again when it was told to, as the rows of the outbox do. Few meet the limit, and hardly any time is lost.
func TestRateLimit_AThousandGhostsAtOnce_DoNotEachRunIntoIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ghosts, rooms = 1000, 20
		b := &bucket{each: 10 * time.Second, burst: 3}
		l := newLimited(t, b.answer)
		begin := time.Now()
		var all sync.WaitGroup
		for room := range rooms {
			all.Go(func() {
				for n := range ghosts / rooms {
					user := id.UserID(fmt.Sprintf("@irc_%d_%d:hs.test", room, n))
					for {
						status, wait := l.request(Impatient(t.Context()), "POST", "register", user)
						if status == 200 {
							break
						}
						time.Sleep(max(wait, minLimitWait))
					}
				}
			})
		}
		all.Wait()
		least := b.each * (ghosts - 3)
		t.Logf("%d ghosts registered, %d requests refused, %.2f times as long as the limit asks for", ghosts, b.refused, float64(time.Since(begin))/float64(least))
		if b.refused > ghosts/10 || time.Since(begin) > least*5/4 {
			t.Errorf("%d were refused, and it took %v instead of %v", b.refused, time.Since(begin), least)
		}
	})
}

// A limit that counts in a minute, and then lets many through, is no reason to let one through in a minute.
func TestRateLimit_ThatCountsByTheMinute_IsNotTakenForOneThatCountsOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		window, in := time.Now(), 0
		l := newLimited(t, func(*http.Request) *http.Response {
			if time.Since(window) >= time.Minute {
				window, in = time.Now(), 0
			}
			if in++; in > 600 {
				return answered(429, fmt.Sprint(int(time.Until(window.Add(time.Minute))/time.Second)+1), limitBody)
			}
			return answered(200, "", "{}")
		})
		begin, done := time.Now(), 0
		for done < 6000 {
			status, wait := l.request(Impatient(t.Context()), "POST", "register", ghostA)
			if status == 200 {
				done++
			} else {
				time.Sleep(wait)
			}
		}
		if took := time.Since(begin); took > 15*time.Minute {
			t.Errorf("6000 took %v, where 600 may go in a minute", took)
		}
	})
}

func TestC6_RegistrationsAndDevices_AreMadeOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil)
		var mu sync.Mutex
		under, most := 0, 0
		l.tr.base = roundTripper(func(*http.Request) (*http.Response, error) {
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			under--
			return answered(200, "", "{}"), nil
		})
		var all sync.WaitGroup
		for n := range 6 {
			user := id.UserID(fmt.Sprintf("@irc_%d:hs.test", n))
			all.Go(func() { l.request(t.Context(), "POST", "register", user) })
			all.Go(func() { l.request(t.Context(), "PUT", "devices/D", user) })
		}
		all.Wait()
		if most != 1 || len(l.tr.limits.holds) != 0 {
			t.Errorf("%d at once, %d limits are left", most, len(l.tr.limits.holds))
		}
	})
}

func TestC6_RegistrationThatIsNotAnswered_KeepsOthersForHalfAMinuteOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil)
		l.tr.base = roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Get("user_id") != string(ghostA) {
				return answered(200, "", "{}"), nil
			}
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		begin := time.Now()
		var all sync.WaitGroup
		all.Go(func() { l.request(t.Context(), "POST", "register", ghostA) })
		synctest.Wait()
		if status, _ := l.request(t.Context(), "POST", "register", "@irc_b:hs.test"); status != 200 || time.Since(begin) != loginTimeout {
			t.Errorf("%d after %v", status, time.Since(begin))
		}
		all.Wait()
	})
}

func TestRateLimit_Waiting_EndsWithTheContextAndTheAppservice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, func(*http.Request) *http.Response { return answered(429, "25", limitBody) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if status, _ := l.request(ctx, "GET", "devices", ghostA); status != 0 || time.Since(begin) != time.Second {
			t.Errorf("%d after %v", status, time.Since(begin))
		}
		time.AfterFunc(time.Second, func() { close(l.quit) })
		begin = time.Now()
		if status, wait := l.request(t.Context(), "GET", "devices", ghostA); status != 429 || wait < 20*time.Second || time.Since(begin) != time.Second {
			t.Errorf("%d with %v after %v", status, wait, time.Since(begin))
		}
		if n := l.requests(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestRateLimit_ImpatientCaller_IsNotKeptWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, limitedUser(ghostA, time.Now().Add(time.Minute), "2"))
		begin := time.Now()
		if status, wait := l.request(Impatient(withRepeat(t.Context())), "POST", "join/!r", ghostA); status != 429 || wait != 2*time.Second || time.Since(begin) != 0 {
			t.Errorf("%d with %v after %v", status, wait, time.Since(begin))
		}
	})
}

func TestRateLimit_ThatHasEnded_IsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, func(*http.Request) *http.Response { return answered(429, "1", limitBody) })
		for n := range 100 {
			l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/t", id.UserID(fmt.Sprintf("@irc_%d:hs.test", n)))
		}
		if n := len(l.tr.limits.holds); n != 100 {
			t.Fatalf("%d limits", n)
		}
		time.Sleep(2 * carefulFor)
		l.request(t.Context(), "PUT", "rooms/!r/send/m.room.message/t", ghostA)
		if n := len(l.tr.limits.holds); n != 1 {
			t.Errorf("%d limits are kept", n)
		}
	})
}

func TestRateLimit_ErrorOfARequestThatWasNotMade_SaysHowLong(t *testing.T) {
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if !strings.Contains(r.URL.Path, "/send/") {
			return false
		}
		w.Header().Set("Retry-After", "3600")
		answerError(w, 429, "M_LIMIT_EXCEEDED", "slow down")
		return true
	}
	f := newFixture(t, hs)
	for n := range 3 {
		_, err := f.send(ghostA, fmt.Sprint(n))
		if wait := RetryAfter(err); wait < 9*time.Minute || !errors.Is(err, mautrix.MLimitExceeded) {
			t.Errorf("%v: wait %v", err, wait)
		}
	}
	if n := hs.count("PUT /rooms/"); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// What a ghost is refused when it wants to come into a room may be its own limit or the room's: the answers are the same.
func TestRateLimit_OfJoins_HoldsTheRoomOnceASecondGhostIsRefusedThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := map[string]bool{"/_matrix/client/v3/join/!full": true}
		end := time.Now().Add(10 * time.Second)
		l := newLimited(t, func(req *http.Request) *http.Response {
			own := req.URL.Query().Get("user_id") == string(ghostA) // it has joined too many rooms
			if time.Now().Before(end) && (own || full[req.URL.Path]) {
				return answered(429, "10", limitBody)
			}
			return answered(200, "", "{}")
		})
		join := func(room string, user id.UserID) int {
			status, _ := l.request(Impatient(t.Context()), "POST", "join/"+room, user)
			return status
		}
		join("!roomy", ghostA)
		if join("!other", ghostA) != 429 || l.requests() != 1 {
			t.Error("a ghost that is limited was let try another room")
		}
		if join("!roomy", "@irc_b:hs.test") != 200 || join("!roomy", "@irc_c:hs.test") != 200 {
			t.Error("one ghost's limit held the room for others")
		}
		before := l.requests()
		for n := range 20 {
			if user := id.UserID(fmt.Sprintf("@irc_%d:hs.test", n)); join("!full", user) != 429 {
				t.Errorf("%s came in", user)
			}
		}
		if n := l.requests() - before; n != 2 {
			t.Errorf("%d requests were made into a room that is limited, and two would have told", n)
		}
		time.Sleep(10 * time.Second)
		if join("!full", "@irc_0:hs.test") != 200 {
			t.Error("the room is held after its limit")
		}
	})
}
