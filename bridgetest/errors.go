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

func missingToken() *refusal {
	return refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "Missing access token")
}

// limited is the refusal of a 429.
func limited(after time.Duration) *refusal {
	e := refuse(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too Many Requests")
	e.extra = map[string]any{"retry_after_ms": after.Milliseconds()}
	return e
}

// wholeSeconds is a Retry-After, rounded up.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
