package proxy

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// exchange is one request and what became of it.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	reader  netip.Addr
	began   time.Time
	stall   time.Duration // how long the reader may take for the headers, or for a refusal

	link   claims        // of a link whose MAC holds
	status int           // 0: nothing was answered
	wait   time.Duration // of 429 and 503: when to come back; 0: retryAfter
	bytes  int64
	first  time.Duration // until the first byte of the media; 0: none was sent
	cut    string        // why the answer was cut short; "": it was not
	cause  error         // for the log
}

// bodies are all that a reader is told. There is one for each status, so that nothing can be learnt from it.
var bodies = map[int]string{
	http.StatusNotFound:                     "There is nothing here.\n",
	http.StatusMethodNotAllowed:             "Only GET and HEAD are answered here.\n",
	http.StatusGone:                         "This link has ended, or its message was deleted.\n",
	http.StatusPreconditionFailed:           "The file is not the one that was asked for.\n",
	http.StatusTooManyRequests:              "Too many requests at once. Try again in a moment.\n",
	http.StatusInternalServerError:          "Something went wrong here.\n",
	http.StatusNotImplemented:               "This file cannot be shown here.\n",
	http.StatusBadGateway:                   "The file could not be fetched from its server.\n",
	http.StatusServiceUnavailable:           "The file cannot be fetched just now. Try again in a moment.\n",
	http.StatusGatewayTimeout:               "The file's server took too long to answer.\n",
	http.StatusRequestedRangeNotSatisfiable: "The file has no such part.\n",
}

const retryAfter = 5 * time.Second

// methods are those that are answered; OPTIONS names exactly these.
const methods = "GET, HEAD"

// guard sets the headers that every answer has.
func guard(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Robots-Tag", "noindex, nofollow, noarchive")
	h.Set("Access-Control-Allow-Origin", "*")
}

// refuse answers with a status and its fixed body.
func (x *exchange) refuse(status int, cause error) {
	h := x.w.Header()
	body := bodies[status]
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(waitSeconds(or(x.wait, retryAfter))))
	case http.StatusMethodNotAllowed:
		h.Set("Allow", methods)
	}
	x.cause = cause
	x.begin(status)
	if x.r.Method != http.MethodHead {
		x.w.Write([]byte(body)) // a reader who is gone is told nothing
	}
}

// begin sends the headers. Whoever asks, and reads nothing of the answers, must not hold a connection for ever, even when all of them are refusals.
func (x *exchange) begin(status int) {
	x.status = status
	_ = x.control.SetWriteDeadline(time.Now().Add(x.stall)) // recorders in tests have none
	x.w.WriteHeader(status)
}

func (x *exchange) answerOptions() {
	h := x.w.Header()
	h.Set("Allow", methods)
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", "Range, If-Range, If-Match, If-None-Match")
	h.Set("Access-Control-Max-Age", "86400")
	x.begin(http.StatusNoContent)
}

func (x *exchange) answerRobots() {
	const body = "User-agent: *\nDisallow: /\n"
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "public, max-age=86400")
	x.begin(http.StatusOK)
	if x.r.Method != http.MethodHead {
		x.w.Write([]byte(body))
	}
}
