package appservice

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
)

// RetryAfter says how long the homeserver asked to wait before the request that failed with err is made again: by
// Retry-After (MSC4041; seconds or a date), else by retry_after_ms of M_LIMIT_EXCEEDED. It is at least 100 ms, and 0 when
// the homeserver asked for nothing.
func RetryAfter(err error) time.Duration {
	var httpErr mautrix.HTTPError
	if !errors.As(err, &httpErr) || httpErr.Response == nil {
		return 0
	}
	wait, known := retryAfter(httpErr.Response.Header.Get("Retry-After"), time.Now())
	if !known && httpErr.RespError != nil {
		var ms float64
		ms, known = httpErr.RespError.ExtraData["retry_after_ms"].(float64)
		wait = milliseconds(ms)
	}
	if !known {
		return 0
	}
	return max(wait, minLimitWait)
}

// askedWait says how long a 429 asks to wait, if it does.
func askedWait(header http.Header, body []byte) (time.Duration, bool) {
	if wait, known := retryAfter(header.Get("Retry-After"), time.Now()); known {
		return wait, true
	}
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
