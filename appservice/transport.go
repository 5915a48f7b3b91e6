package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
)

const (
	minLimitWait = 100 * time.Millisecond
	maxLimitWait = 30 * time.Second // all waits for one request
	limitTries   = 8                // requests made for one, when each is answered 429
	maxRedirects = 5
)

// errRedirect says that a homeserver sent a request that carries the token, and must be made there, elsewhere.
var errRedirect = errors.New("redirect to another host refused: the request would carry the token there")

type repeatable struct{}

// withRepeat marks a POST as one that may be repeated, because doing it twice is doing it once.
func withRepeat(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatable{}, true)
}

// newHTTPClient makes the client of all intents. Connections are kept: ghosts speak in bursts.
func newHTTPClient(given *http.Client, log zerolog.Logger) *http.Client {
	client := &http.Client{CheckRedirect: checkRedirect}
	var base http.RoundTripper
	if given != nil {
		base, client.Jar, client.Timeout = given.Transport, given.Jar, given.Timeout
	}
	if base == nil {
		base = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConns:          100,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: time.Second,
			ResponseHeaderTimeout: 3 * time.Minute, // creating a large room takes that long
		}
	}
	client.Transport = &transport{base: base, log: log}
	return client
}

// checkRedirect lets requests go on at the same scheme, host and port. A media download may go elsewhere, to a content
// delivery network, but without the token.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errors.New("too many redirects")
	}
	first := via[0].URL
	if req.URL.Scheme == first.Scheme && hostPort(req.URL.Scheme, req.URL.Host) == hostPort(first.Scheme, first.Host) {
		return nil
	}
	if req.Method != http.MethodGet || !strings.Contains(first.Path, "/media/") {
		return errRedirect
	}
	// net/http drops the header for another host, and keeps it for another port of the same one.
	req.Header.Del("Authorization")
	return nil
}

func hostPort(scheme, host string) string {
	if h, p, err := net.SplitHostPort(host); err == nil {
		return strings.ToLower(h) + ":" + p
	}
	if scheme == "https" {
		return strings.ToLower(host) + ":443"
	}
	return strings.ToLower(host) + ":80"
}

// transport waits out short rate limits. A request that is answered 429 was not done; it is repeated only when doing it
// twice would do no harm, because a proxy in between may have answered late. Events that are sent are never repeated here:
// who sends them has a queue and a policy, and learns from [RetryAfter] how long to wait.
type transport struct {
	base http.RoundTripper
	log  zerolog.Logger
}

func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	waited := time.Duration(0)
	for try := 1; ; try++ {
		begin := time.Now()
		resp, err := t.base.RoundTrip(req)
		if err != nil {
			t.log.Debug().Err(err).Str("method", req.Method).Str("path", req.URL.Path).Msg("Request failed")
			return nil, err
		}
		t.log.Debug().Str("method", req.Method).Str("path", req.URL.Path).Int("status", resp.StatusCode).Dur("took", time.Since(begin)).Msg("Request")
		if resp.StatusCode != http.StatusTooManyRequests || try >= limitTries || !mayRepeat(req) {
			return resp, nil
		}
		wait := limitWait(resp, try)
		if waited += wait; waited > maxLimitWait {
			return resp, nil
		}
		again := req.Clone(req.Context())
		if req.GetBody != nil {
			if again.Body, err = req.GetBody(); err != nil {
				return resp, nil
			}
		}
		_ = resp.Body.Close()
		t.log.Debug().Str("path", req.URL.Path).Dur("wait", wait).Msg("Rate limited")
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-time.After(wait):
		}
		req = again
	}
}

func mayRepeat(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false // the body is read and gone
	}
	if sendsEvent(req) {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	}
	marked, _ := req.Context().Value(repeatable{}).(bool)
	return marked
}

// sendsEvent says whether a request sends an event into a room.
func sendsEvent(req *http.Request) bool {
	if req.Method != http.MethodPut {
		return false
	}
	_, path, _ := strings.Cut(req.URL.EscapedPath(), "/rooms/")
	_, path, _ = strings.Cut(path, "/")
	what, _, _ := strings.Cut(path, "/")
	return what == "send" || what == "state" || what == "redact"
}

// limitWait says how long a 429 asks to wait: by Retry-After (seconds or a date), else by retry_after_ms, else our own
// backoff, and at least 100 ms. The body stays readable.
func limitWait(resp *http.Response, try int) time.Duration {
	wait, known := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if !known {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
		if wait, known = retryAfterMS(body); !known {
			wait = backoff(try)
		}
	}
	return max(wait, minLimitWait)
}

func retryAfterMS(body []byte) (time.Duration, bool) {
	var limit struct {
		MS *float64 `json:"retry_after_ms"`
	}
	if json.Unmarshal(body, &limit) != nil || limit.MS == nil {
		return 0, false
	}
	return milliseconds(*limit.MS), true
}

func milliseconds(ms float64) time.Duration {
	return time.Duration(max(min(ms, 1e12), 0)) * time.Millisecond
}

// RetryAfter says how long the homeserver asked to wait before the request that failed with err is made again: by
// Retry-After, or by retry_after_ms of M_LIMIT_EXCEEDED. It is 0 when the homeserver asked for nothing.
func RetryAfter(err error) time.Duration {
	var httpErr mautrix.HTTPError
	if !errors.As(err, &httpErr) || httpErr.Response == nil {
		return 0
	}
	wait, known := retryAfter(httpErr.Response.Header.Get("Retry-After"), time.Now())
	if !known && httpErr.RespError != nil {
		ms, _ := httpErr.RespError.ExtraData["retry_after_ms"].(float64)
		wait = milliseconds(ms)
	}
	return max(wait, 0)
}

func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if header == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseFloat(header, 64); err == nil && seconds == seconds {
		return time.Duration(max(min(seconds, 1e9), 0) * float64(time.Second)), true
	}
	if date, err := http.ParseTime(header); err == nil {
		return date.Sub(now), true
	}
	return 0, false
}
