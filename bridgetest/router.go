package bridgetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"
)

// How a route is served.
type mode uint8

const (
	locked mode = iota // with the data locked, for a user or appservice
	free               // not locked, for a user or appservice: it waits for something
	open               // locked, without authentication
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
		select {
		case <-time.After(fault.Delay):
		case <-r.Context().Done():
		}
	}
	switch {
	case fault.DropAfter:
		hs.dispatch(httptest.NewRecorder(), r)
		reset(w)
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
			w.Header().Set("Retry-After", wholeSeconds(fault.RetryAfter))
		}
		hs.record(r, identity{}, fault.Status)
		writeJSON(w, e.status, e.body())
	default:
		hs.dispatch(w, r)
	}
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
		case err != nil:
			code, answer = http.StatusInternalServerError, map[string]any{"errcode": "M_UNKNOWN", "error": "Internal server error"}
		case ok:
			code, answer = withStatus.status, withStatus.body
		}
	}
	hs.record(r, c.who, code)
	if !c.written {
		writeJSON(w, code, answer)
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
		Time: time.Now(), Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.Query(), Status: status,
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

func writeJSON(w http.ResponseWriter, status int, body any) {
	data := mustJSON(body)
	h := w.Header()
	h.Set("Server", serverName)
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

const serverName = "Synapse/1.160.0"

func (hs *Homeserver) answer(c *call) (any, error) {
	if c.Method == http.MethodOptions {
		return struct{}{}, nil
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
	if rt.mode != open {
		if c.who, err = hs.identify(c.Request); err != nil {
			return nil, err
		}
	}
	if rt.mode == free {
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
	return nil, refuse(http.StatusNotFound, "M_UNRECOGNIZED", "Unrecognized request")
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

// identify finds out as whom a request is made.
func (hs *Homeserver) identify(r *http.Request) (identity, error) {
	token, err := bearer(r)
	if err != nil {
		return identity{}, err
	}
	if token == "" {
		return identity{}, missingToken()
	}
	if s := hs.tokens[token]; s != nil {
		return identity{account: s.account, device: s.device}, nil // user_id is ignored in silence
	}
	as := hs.serviceByToken(token)
	if as == nil {
		return identity{}, unknownToken("Invalid access token passed.")
	}
	who := identity{service: as, account: as.sender}
	query := r.URL.Query()
	user := query.Get("user_id")
	if user != "" && user != as.sender.id {
		if !as.users.match(user) || !strings.HasSuffix(user, ":"+hs.opts.ServerName) {
			return identity{service: as}, forbidden("Application service cannot masquerade as this user (%s).", user)
		}
		who.account = hs.accounts[user]
		if who.account == nil || !who.account.registered {
			return identity{service: as}, forbidden("Application service has not registered this user (%s)", user)
		}
	}
	for _, key := range []string{"org.matrix.msc3202.device_id", "device_id"} {
		if !query.Has(key) {
			continue
		}
		if user == "" {
			return who, errors.New("a device without a user") // 500, as in Synapse
		}
		device := query.Get(key)
		if who.account.devices[device] == nil {
			return who, badRequest("ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE",
				"Application service trying to use a device that doesn't exist ('%s' for %s)", device, who.account.id)
		}
		who.device = device
		break
	}
	return who, nil
}

// bearer returns the access token of a request, which Synapse takes from the query too, but not from both.
func bearer(r *http.Request) (string, error) {
	header, query := r.Header.Get("Authorization"), r.URL.Query()
	if header != "" && query.Has("access_token") {
		return "", refuse(http.StatusUnauthorized, "M_MISSING_TOKEN", "Mixing Authorization headers and access_token query parameters.")
	}
	if token, found := strings.CutPrefix(header, "Bearer "); found {
		return token, nil
	}
	return query.Get("access_token"), nil
}
