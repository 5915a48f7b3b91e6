package bridgetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/id"
)

// How a route is served.
type mode uint8

const (
	locked mode = iota // with the data locked, for a user or appservice
	free               // not locked, for a user or appservice: it waits for something
	open               // locked, without authentication
	public             // not locked, without authentication
	anyone             // not locked, for users and appservices, and for whom has no token
)

type route struct {
	method string
	parts  []string
	mode   mode
	serve  func(*call) (any, error)
}

// call is one request on its way through the homeserver.
type call struct {
	http.ResponseWriter
	*http.Request
	vars    map[string]string
	body    []byte // of everything but media
	who     identity
	written bool // the handler answered by itself
}

// identity is who makes a request.
type identity struct {
	account *account
	device  string
	service *appService // set when the token is an appservice's
}

func (c *call) user() string { return c.who.account.id }

// json decodes the body, which must be there.
func (c *call) json(into any) error {
	if err := json.Unmarshal(c.body, into); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) {
			return badRequest("M_BAD_JSON", "%s has the wrong type", wrongType.Field)
		}
		return badRequest("M_NOT_JSON", "Content not JSON.")
	}
	return nil
}

// maybeJSON decodes the body when there is one.
func (c *call) maybeJSON(into any) error {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return nil
	}
	return c.json(into)
}

func (c *call) param(name string) string { return c.URL.Query().Get(name) }

const maxJSON = 1 << 20 // no body but media's may be larger: an event has at most 64 KiB

// ServeHTTP answers a request to the client-server API.
func (hs *Homeserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hs.mu.Lock()
	if hs.closed {
		hs.mu.Unlock()
		reset(w)
		return
	}
	hs.wg.Add(1) // Close waits for requests under way
	hs.noteLeak(r)
	hs.mu.Unlock()
	defer hs.wg.Done()
	for _, fn := range hs.faults.interceptors() {
		if (*fn)(w, r) {
			hs.record(r, identity{}, 0)
			return
		}
	}
	fault := hs.faults.take(r)
	if fault == nil {
		hs.dispatch(w, r)
		return
	}
	if fault.Delay > 0 {
		// net/http notices that the other side has gone only once the body is read.
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), r.Body))
		_ = hs.sleep(r.Context(), fault.Delay) // cut short, the request goes its way to nobody
	}
	switch {
	case fault.DropAfter:
		hs.dispatch(httptest.NewRecorder(), r)
		reset(w)
	case fault.CutAnswer:
		hs.cutAnswer(w, r)
	case fault.Drop:
		hs.record(r, identity{}, 0)
		reset(w)
	case fault.Status != 0:
		code := fault.ErrCode
		if code == "" {
			code = "M_UNKNOWN"
		}
		e := refuse(fault.Status, code, "%s", http.StatusText(fault.Status))
		if fault.Status == http.StatusTooManyRequests {
			e = limited(fault.RetryAfter)
		}
		hs.record(r, identity{}, fault.Status)
		e.describe(w.Header())
		hs.writeJSON(w, e.status, e.body())
	default:
		hs.dispatch(w, r)
	}
}

// cutAnswer answers with the first half of the body, and then nothing.
func (hs *Homeserver) cutAnswer(w http.ResponseWriter, r *http.Request) {
	rec := httptest.NewRecorder()
	hs.dispatch(rec, r)
	maps.Copy(w.Header(), rec.Header())
	w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	panic(http.ErrAbortHandler)
}

// reset ends a connection as a crash would, without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (hs *Homeserver) dispatch(w http.ResponseWriter, r *http.Request) {
	status := &statusWriter{ResponseWriter: w}
	c := &call{ResponseWriter: status, Request: r}
	answer, err := hs.answer(c)
	code := status.status
	if !c.written {
		code = http.StatusOK
		var no *refusal
		switch withStatus, ok := answer.(answerWithStatus); {
		case errors.As(err, &no):
			code, answer = no.status, no.body()
			no.describe(w.Header())
		case err != nil:
			code, answer = http.StatusInternalServerError, map[string]any{"errcode": "M_UNKNOWN", "error": "Internal server error"}
		case ok:
			code, answer = withStatus.status, withStatus.body
		}
	}
	hs.record(r, c.who, code)
	if !c.written {
		hs.writeJSON(w, code, answer)
	}
}

type answerWithStatus struct {
	status int
	body   any
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (hs *Homeserver) record(r *http.Request, who identity, status int) {
	rec := Request{
		Time: hs.opts.Clock.Now(), Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.Query(), Status: status,
		Device: id.DeviceID(who.device),
	}
	if who.account != nil {
		rec.User = id.UserID(who.account.id)
	}
	if who.service != nil {
		rec.AppService = who.service.reg.ID
	}
	hs.log.add(rec)
}

func (hs *Homeserver) writeJSON(w http.ResponseWriter, status int, body any) {
	data := mustJSON(body)
	h := w.Header()
	hs.traits.sign(h)
	h.Set("Content-Type", "application/json")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	}
	allowOrigins(h)
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

func allowOrigins(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date")
}

const serverName = "Synapse/1.160.0"

func (hs *Homeserver) answer(c *call) (any, error) {
	if c.Method == http.MethodOptions {
		c.written = true
		allowOrigins(c.ResponseWriter.Header())
		hs.traits.sign(c.ResponseWriter.Header())
		c.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
	rt, err := hs.route(c)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(c.URL.Path, "/_matrix/media/v3/upload") {
		c.body, err = io.ReadAll(io.LimitReader(c.Body, maxJSON+1))
		if err != nil {
			return nil, badRequest("M_UNKNOWN", "The body broke off")
		}
		if len(c.body) > maxJSON {
			return nil, refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "The body is too large")
		}
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if rt.mode != open && rt.mode != public {
		token, _ := bearer(c.Request)
		if c.who, err = hs.identify(c.Request); err != nil && (rt.mode != anyone || token != "") {
			return nil, err
		}
	}
	if rt.mode == free || rt.mode == public || rt.mode == anyone {
		hs.mu.Unlock()
		defer hs.mu.Lock()
	}
	return rt.serve(c)
}

// route finds the handler and fills in the variables of its path.
func (hs *Homeserver) route(c *call) (*route, error) {
	parts := strings.Split(strings.TrimPrefix(c.URL.EscapedPath(), "/"), "/")
	for i, p := range parts {
		if u, err := url.PathUnescape(p); err == nil {
			parts[i] = u
		}
	}
	known := false
	for i := range hs.routes {
		rt := &hs.routes[i]
		vars, ok := matchPath(rt.parts, parts)
		if !ok {
			continue
		}
		known = true
		if rt.method == c.Method || rt.method == http.MethodGet && c.Method == http.MethodHead {
			c.vars = vars
			return rt, nil
		}
	}
	if known {
		return nil, refuse(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "Unrecognized request")
	}
	return nil, unrecognized()
}

func matchPath(pattern, parts []string) (map[string]string, bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	vars := make(map[string]string)
	for i, p := range pattern {
		switch {
		case strings.HasPrefix(p, "{"):
			vars[p[1:len(p)-1]] = parts[i]
		case p != parts[i]:
			return nil, false
		}
	}
	return vars, true
}
