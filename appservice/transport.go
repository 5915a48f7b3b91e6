package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/internal/failpoint"
)

// answerSilence is for how long an answer that has begun may say nothing more. Whoever reads one may hold locks that others
// wait for.
const answerSilence = time.Minute

// maxConnections to the homeserver are open at once; further requests wait for one. The listener of Synapse lets 50 wait to be
// accepted, and when it is busy, as after its start, those of more are reset. There are more than workers, of whom each may
// read one answer while it makes another request.
const maxConnections = 48

type repeatable struct{}

// withRepeat marks a POST as one that may be repeated, because doing it twice is doing it once.
func withRepeat(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatable{}, true)
}

// newHTTPClient makes the client of all intents. Connections are kept: ghosts speak in bursts.
func newHTTPClient(given *http.Client, t *transport) *http.Client {
	client := &http.Client{CheckRedirect: checkRedirect, Transport: t}
	if given != nil {
		t.base, client.Jar, client.Timeout = given.Transport, given.Jar, given.Timeout
	}
	if t.base == nil {
		t.base = connections(maxConnections)
	}
	return client
}

// connections makes a pool of its own.
func connections(most int) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   most,
		MaxConnsPerHost:       most,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ResponseHeaderTimeout: 3 * time.Minute, // creating a large room takes that long
	}
}

// newSyncClient makes the client of [Intent.SyncKeys], whose connections are its own. A given transport that is net/http's is copied.
func newSyncClient(given *http.Client, of *transport) *http.Client {
	t := *of
	if given == nil || given.Transport == nil {
		t.base = connections(MaxKeySyncs)
	} else if pool, ok := given.Transport.(*http.Transport); ok {
		pool = pool.Clone()
		pool.MaxConnsPerHost = MaxKeySyncs
		t.base = pool
	}
	return &http.Client{CheckRedirect: checkRedirect, Transport: &t}
}

// transport carries every request to the homeserver: it keeps to rate limits, notes what users are refused, and takes
// tokens out of what a homeserver writes into its errors. A request that is answered 429 was not done; it is repeated only
// when doing it twice would do no harm, because a proxy in between may have answered late. Events that are sent are never
// repeated here, nor do they wait: who sends them has a queue and a policy, and learns from [RetryAfter] how long to wait.
type transport struct {
	base     http.RoundTripper
	log      zerolog.Logger
	limits   *limits
	troubles *troubles
	secrets  []string
	absence  *absence
}

func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Authorization") == "" {
		return t.base.RoundTrip(req) // to somewhere else than the homeserver: see checkRedirect
	}
	a := actOf(req)
	if t.troubles.locked(a.user, a.name) {
		return lockedAnswer(req), nil
	}
	patience := patienceOf(req, a)
	for try := 1; ; try++ {
		leave, wait, err := t.limits.enter(req.Context(), a, &patience)
		switch {
		case err != nil:
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, err
		case wait > 0:
			t.log.Debug().Str("method", req.Method).Str("path", req.URL.Path).Dur("wait", wait).Msg("Not sent: the homeserver has asked to wait")
			return limitAnswer(req, wait), nil
		}
		if err := a.mayLeave(req.Context()); err != nil {
			leave()
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, err
		}
		resp, limited, err := t.ask(req, a)
		leave()
		if err != nil || !limited || try >= limitTries || !mayRepeat(req, a) {
			return resp, err
		}
		again := req.Clone(req.Context())
		if req.GetBody != nil {
			if again.Body, err = req.GetBody(); err != nil {
				return resp, nil
			}
		}
		if t.limits.held(a) > patience {
			return resp, nil
		}
		_ = resp.Body.Close()
		req = again
	}
}

// ask makes a request once, and learns from the answer.
func (t *transport) ask(req *http.Request, a act) (resp *http.Response, limited bool, err error) {
	begin, method, path := time.Now(), req.Method, t.redact(req.URL.Path)
	ctx, cancel := context.WithCancel(req.Context())
	if a.class == classLogins {
		cancel()
		ctx, cancel = context.WithTimeout(req.Context(), loginTimeout)
	}
	req = req.WithContext(ctx)
	failpoint.Before(a.name)
	resp, err = t.base.RoundTrip(req)
	failpoint.After(a.name)
	if err != nil {
		if ctx.Err() == nil && t.absence != nil { // or else somebody has given it up
			t.absence.failed()
		}
		cancel()
		t.log.Debug().Str("error", t.redact(err.Error())).Str("method", method).Str("path", path).Msg("Request failed")
		return nil, false, err
	}
	resp.Body = &endingBody{resp.Body, cancel}
	t.log.Debug().Str("method", method).Str("path", path).Int("status", resp.StatusCode).Dur("took", time.Since(begin)).Msg("Request")
	if location := resp.Header.Get("Location"); location != "" {
		resp.Header.Set("Location", t.redact(location)) // errors show where a redirect leads
	}
	if resp.StatusCode < 400 {
		t.noteAnswer(resp.StatusCode, true)
		t.limits.passed(a)
		t.troubles.worked(a.user, a.name)
		return resp, false, nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusalBytes))
	_ = resp.Body.Close()
	body = []byte(t.redact(string(body), bearerOf(req)))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	var matrix struct {
		Code string `json:"errcode"`
	}
	_ = json.Unmarshal(body, &matrix)
	t.noteAnswer(resp.StatusCode, matrix.Code != "")
	if resp.StatusCode == http.StatusTooManyRequests {
		wait := t.limits.refused(a, resp, matrix.Code != "", body)
		t.log.Debug().Str("method", method).Str("path", path).Dur("wait", wait).Msg("Rate limited")
		return resp, true, nil
	}
	t.limits.passed(a)
	t.troubles.refused(a.user, a.name, matrix.Code)
	return resp, false, nil
}

func (t *transport) noteAnswer(status int, matrix bool) {
	if t.absence != nil {
		t.absence.answered(status, matrix)
	}
}

// endingBody ends the time limit of a request with its answer, and gives up an answer of which nothing more comes. What its
// reader takes between two reads is its own affair.
type endingBody struct {
	io.ReadCloser
	end context.CancelFunc
}

func (b *endingBody) Read(p []byte) (int, error) {
	silence := time.AfterFunc(answerSilence, b.end)
	defer silence.Stop()
	return b.ReadCloser.Read(p)
}

func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

func bearerOf(req *http.Request) string {
	_, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	return token
}

// redact takes tokens out of text that is logged, or shown in an error.
func (t *transport) redact(text string, more ...string) string {
	for _, secrets := range [][]string{t.secrets, more} {
		for _, secret := range secrets {
			if secret != "" {
				text = strings.ReplaceAll(text, secret, "(token)")
			}
		}
	}
	return text
}

// patienceOf says how long a request may be held back by limits.
func patienceOf(req *http.Request, a act) time.Duration {
	if hasNone, _ := req.Context().Value(impatient{}).(bool); hasNone || a.sendsEvent() {
		return 0
	}
	return maxLimitWait
}

// mayRepeat says whether doing it twice is doing it once: see "What is repeated" in the package's documentation.
func mayRepeat(req *http.Request, a act) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false // the body is read and gone
	}
	if a.sendsEvent() {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	}
	marked, _ := req.Context().Value(repeatable{}).(bool)
	return marked
}

// limitAnswer is what the homeserver would answer to a request that it is known to refuse.
func limitAnswer(req *http.Request, wait time.Duration) *http.Response {
	return ownAnswer(req, http.StatusTooManyRequests, map[string]any{
		"errcode": "M_LIMIT_EXCEEDED", "error": "not sent: the homeserver has asked to wait", "retry_after_ms": (wait + time.Millisecond - 1).Milliseconds(),
	})
}

// ownAnswer answers in the homeserver's place. The request is not made.
func ownAnswer(req *http.Request, status int, content map[string]any) *http.Response {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	body, _ := json.Marshal(content) // strings and numbers: it cannot fail
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)), Request: req,
	}
}
