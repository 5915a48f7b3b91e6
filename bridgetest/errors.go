package bridgetest

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// refusal is an error that a client is told.
type refusal struct {
	status int
	code   string
	msg    string
	extra  map[string]any
	after  time.Duration // of a 429: when to come again
}

func (e *refusal) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.msg) }

func (e *refusal) body() map[string]any {
	out := map[string]any{"errcode": e.code, "error": e.msg}
	maps.Copy(out, e.extra)
	return out
}

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, msg: fmt.Sprintf(format, args...)}
}

func forbidden(format string, args ...any) *refusal {
	return refuse(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

func notFound(format string, args ...any) *refusal {
	return refuse(http.StatusNotFound, "M_NOT_FOUND", format, args...)
}

func badRequest(code, format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, code, format, args...)
}

func unknownToken(msg string) *refusal {
	e := refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "%s", msg)
	e.extra = map[string]any{"soft_logout": false}
	return e
}

// unrecognized is the refusal of what the server has not got.
func unrecognized() *refusal {
	return refuse(http.StatusNotFound, "M_UNRECOGNIZED", "Unrecognized request")
}

func missingToken() *refusal {
	return refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "Missing access token")
}

// limited is the refusal of a 429.
func limited(after time.Duration) *refusal {
	e := refuse(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too Many Requests")
	e.extra, e.after = map[string]any{"retry_after_ms": after.Milliseconds()}, after
	return e
}

// wholeSeconds is a Retry-After, rounded up.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// describe sets the headers of a refusal.
func (e *refusal) describe(h http.Header) {
	if e.status == http.StatusTooManyRequests {
		h.Set("Retry-After", wholeSeconds(e.after))
	}
}
