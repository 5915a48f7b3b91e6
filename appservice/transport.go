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
)

const (
	minLimitWait = 100 * time.Millisecond
	maxLimitWait = 10 * time.Minute
	limitTries   = 8 // requests made for one, when each is answered 429
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

// transport waits out rate limits. A request that is answered 429 was not done; it is repeated only when doing it twice
// would do no harm, because a proxy in between may have answered late.
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
		wait, ok := limitWait(resp, try)
		if !ok {
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
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	}
	marked, _ := req.Context().Value(repeatable{}).(bool)
	return marked
}

// limitWait says how long a 429 asks to wait: by Retry-After (seconds or a date), else by retry_after_ms, else our own
// backoff, and at least 100 ms. ok is false when it is more than 10 minutes: that is for the caller to decide. The body
// stays readable.
func limitWait(resp *http.Response, try int) (wait time.Duration, ok bool) {
	wait, known := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if !known {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
		var limit struct {
			MS *float64 `json:"retry_after_ms"`
		}
		if json.Unmarshal(body, &limit) == nil && limit.MS != nil {
			wait = time.Duration(min(*limit.MS, 1e12)) * time.Millisecond
		} else {
			wait = backoff(try)
		}
	}
	return max(wait, minLimitWait), wait <= maxLimitWait
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
