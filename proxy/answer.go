package proxy

import (
	"crypto/tls"
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
	conn    *conn // below w; nil: it is not known
	reader  netip.Addr
	began   time.Time
	stall   time.Duration // how long the reader may take for the headers, or for a refusal
	given   time.Time     // when it was last given time

	link   claims        // of a link whose MAC holds
	cuts   uint64        // revocations carried out before it was looked up
	status int           // 0: nothing was answered
	wait   time.Duration // of 429 and 503: when to come back; 0: retryAfter
	bytes  int64
	source content       // where the media comes from; nil: it was not opened
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

// guards are the headers that every answer has. Their names are as http.Header has them, and their values are shared and must not be changed.
var guards = []struct {
	name  string
	value []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"Content-Security-Policy", []string{"sandbox; default-src 'none'"}},
	{"Cross-Origin-Resource-Policy", []string{"cross-origin"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"X-Robots-Tag", []string{"noindex, nofollow, noarchive"}},
	{"Access-Control-Allow-Origin", []string{"*"}},
}

func guard(h http.Header) {
	for _, g := range guards {
		h[g.name] = g.value
	}
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
	x.extend(x.stall)
	if x.conn != nil {
		x.conn.hold()
	}
	x.w.WriteHeader(status)
}

// extend gives the reader time anew, unless it was just given some.
func (x *exchange) extend(patience time.Duration) {
	now := time.Now()
	if now.Sub(x.given) < patience/16 {
		return
	}
	x.given = now
	if x.conn != nil {
		_ = x.conn.SetWriteDeadline(now.Add(patience))
		return
	}
	_ = x.control.SetWriteDeadline(now.Add(patience)) // recorders in tests have none, and are not slow
}

// release sends what waits for more to go with it.
func (x *exchange) release() error {
	if x.conn == nil {
		return nil
	}
	return x.conn.release()
}

// abort ends an answer of which the reader was promised more. Only a broken connection tells it that this is not the whole file; and where it was told no length
// and gets no chunks (HTTP/1.0), only one that is reset rather than closed.
func (x *exchange) abort() {
	if !x.r.ProtoAtLeast(1, 1) && x.w.Header().Get("Content-Length") == "" {
		if c, _, err := x.control.Hijack(); err == nil {
			if secure, ok := c.(*tls.Conn); ok {
				c = secure.NetConn() // whose own end is an end in good order
			}
			if tcp, ok := c.(interface{ SetLinger(seconds int) error }); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		}
	}
	panic(http.ErrAbortHandler)
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
