package appservice

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
)

func TestD1_D2_RateLimit_WaitsAsTheHomeserverSays(t *testing.T) {
	synctest.Test(t, waitsAsTheHomeserverSays) // where a minute is a minute
}

func waitsAsTheHomeserverSays(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		header, body string
		min, max     time.Duration
	}{
		{"2", `{"retry_after_ms":5}`, 2 * time.Second, 2 * time.Second},
		{"", `{"retry_after_ms":1437}`, 1437 * time.Millisecond, 1437 * time.Millisecond},
		{"0", ``, minLimitWait, minLimitWait},
		{"-5", ``, minLimitWait, minLimitWait},
		{"", `{"retry_after_ms":-1}`, minLimitWait, minLimitWait},
		{now.Add(-time.Hour).UTC().Format(http.TimeFormat), ``, minLimitWait, minLimitWait},
		{now.Add(time.Minute).UTC().Format(http.TimeFormat), ``, time.Minute, time.Minute},
		{"3600", ``, time.Hour, time.Hour},
		{"soon", `{}`, time.Second, time.Second},
		{"", `nonsense`, time.Second, time.Second},
		{"", `{"retry_after_ms":1e300}`, time.Hour, 1e18},
	} {
		resp := &http.Response{Header: http.Header{}}
		if c.header != "" {
			resp.Header.Set("Retry-After", c.header)
		}
		l := newLimits("", nil, func(class, string) {})
		if wait := l.refused(act{user: ghostA, class: classJoins}, resp, true, []byte(c.body)); wait < c.min || wait > c.max {
			t.Errorf("%q %q: %v", c.header, c.body, wait)
		}
	}
}

func TestRateLimit_OnlyIdempotentRequestsAreRepeated(t *testing.T) {
	hs := newFakeHS(t)
	limited := map[string]int{}
	hs.override = func(w http.ResponseWriter, r *http.Request, body string) bool {
		key := r.Method + r.URL.Path
		if limited[key]++; limited[key] == 1 {
			answerError(w, 429, "M_LIMIT_EXCEEDED", "slow down")
			return true
		}
		return false
	}
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	f := newFixture(t, hs, func(c *Config) { c.HTTPClient = &http.Client{Transport: limitHeader{base}} })
	if _, err := f.send(ghostA, "t1"); !errors.Is(err, mautrix.MLimitExceeded) {
		t.Errorf("register, device and join are repeatable, send is left to the caller: %v", err)
	}
	if body := hs.find("PUT /rooms/" + testRoom + "/send/"); !strings.HasSuffix(body, `{"body":"hi"}`) {
		t.Errorf("sent %q", body)
	}
	if _, err := f.as.Bot().CreateRoom(t.Context(), &mautrix.ReqCreateRoom{}); !errors.Is(err, mautrix.MLimitExceeded) || hs.count("POST /createRoom") != 1 {
		t.Errorf("creating a room was repeated: %v", err)
	}
}

func TestRateLimit_OfWhatIsSent_IsTheCallersAtOnce(t *testing.T) {
	for what, act := range map[string]func(i *Intent) error{
		"send": func(i *Intent) error {
			_, err := i.SendMessage(context.Background(), "!a/send/b:hs.test", event.EventMessage, map[string]string{}, "t")
			return err
		},
		"state": func(i *Intent) error {
			_, err := i.SendState(context.Background(), testRoom, event.StateTopic, "", map[string]string{})
			return err
		},
		"redact": func(i *Intent) error {
			_, err := i.Redact(context.Background(), testRoom, "$e", "", "t")
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			hs := newFakeHS(t)
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				if !strings.Contains(r.URL.Path, "/"+what+"/") || r.Method != "PUT" {
					return false
				}
				w.WriteHeader(429)
				_, _ = w.Write([]byte(`{"errcode":"M_LIMIT_EXCEEDED","error":"slow down","retry_after_ms":1437}`))
				return true
			}
			f := newFixture(t, hs)
			err := act(f.as.Ghost(ghostA))
			if got := RetryAfter(err); got != 1437*time.Millisecond || !errors.Is(err, mautrix.MLimitExceeded) {
				t.Errorf("wait %v after %v", got, err)
			}
			if n := hs.count("PUT /rooms/"); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
	if RetryAfter(errTest) != 0 || RetryAfter(nil) != 0 {
		t.Error("an error that says nothing asks to wait")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// limitHeader makes the waits of the test short.
type limitHeader struct{ http.RoundTripper }

func (l limitHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil && resp.StatusCode == 429 {
		resp.Header.Set("Retry-After", "0")
	}
	return resp, err
}
