package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// endpoint is where a homeserver gives media out: for a token (MSC3916), and where one does that does not know those.
type endpoint struct{ authenticated, legacy string }

var (
	downloads  = endpoint{"/_matrix/client/v1/media/download/", "/_matrix/media/v3/download/"}
	thumbnails = endpoint{"/_matrix/client/v1/media/thumbnail/", "/_matrix/media/v3/thumbnail/"}
)

const (
	legacyFor     = time.Hour // how long a homeserver that knows only the legacy endpoint is asked there first
	maxErrorBody  = 4 << 10
	upstreamAgent = "Trestle-Media"
)

var (
	errSlow    = errors.New("the homeserver took too long")
	errTotal   = errors.New("the answer took too long in all")
	errTooLong = errors.New("the file is larger than the limit")
	errStatus  = errors.New("the homeserver answers with another status")
)

// failure is an answer other than the media: the status for the reader, and the cause for the log. Nothing of the homeserver's answer is in it.
type failure struct {
	status int
	cause  error
}

func (f *failure) Error() string { return f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }

func failed(status int, format string, args ...any) *failure {
	return &failure{status, fmt.Errorf(format, args...)}
}

// upstream fetches media from the configured homeserver, and from where that redirects to.
type upstream struct {
	base         string // HomeserverURL without a slash at its end
	token        string
	homeserver   *http.Client
	redirect     *http.Client
	redirectHTTP bool
	maxSize      int64
	firstByte    time.Duration
	stall        time.Duration
	now          func() time.Time
	denied       func()

	legacyUntil atomic.Int64 // Unix nanoseconds
}

// media is an answer of the homeserver. Close ends it.
type media struct {
	ctx         context.Context // of this request alone: tells why a read was broken off
	body        io.ReadCloser
	size        int64 // bytes; -1: not said
	contentType string
	end         context.CancelFunc
	watch       *watchdog
	left        int64 // bytes until the size limit is passed
	pulled      int64 // bytes that came
}

// open asks for media. method is GET or HEAD.
func (u *upstream) open(ctx context.Context, method, server, mediaID string) (*media, error) {
	return u.get(ctx, method, downloads, mediaPath(server, mediaID))
}

func mediaPath(server, mediaID string) string {
	return url.PathEscape(server) + "/" + url.PathEscape(mediaID)
}

// get asks an endpoint. The time limit until the answer covers redirects and the second path.
func (u *upstream) get(ctx context.Context, method string, e endpoint, suffix string) (*media, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := startWatchdog(u.firstByte, func() { cancel(errSlow) })
	m, err := u.find(ctx, method, e, suffix)
	if err != nil {
		watch.stop()
		cause := context.Cause(ctx)
		cancel(nil)
		return nil, u.explain(err, cause)
	}
	m.ctx, m.watch = ctx, watch
	m.end = func() { watch.stop(); cancel(nil) }
	watch.limit = u.stall
	watch.stop()
	return m, nil
}

// explain makes any error a failure, with no URL in it: a redirect's may hold a signature.
func (u *upstream) explain(err, cause error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var named *url.Error
	for errors.As(err, &named) {
		err = named.Err
	}
	var timeout net.Error
	switch {
	case errors.Is(cause, errSlow), errors.Is(cause, errTotal):
		return &failure{http.StatusGatewayTimeout, cause}
	case cause != nil: // the reader has gone
		return cause
	case errors.As(err, &timeout) && timeout.Timeout():
		return failed(http.StatusGatewayTimeout, "ask the homeserver: %w", err)
	}
	return failed(http.StatusBadGateway, "ask the homeserver: %w", err)
}

// find tries the two paths, the one that worked last first. A homeserver that was upgraded meanwhile no longer finds new media on the
// legacy one, so neither answers for the other.
func (u *upstream) find(ctx context.Context, method string, e endpoint, suffix string) (*media, error) {
	paths := [2]string{e.authenticated, e.legacy}
	if u.now().UnixNano() < u.legacyUntil.Load() {
		paths = [2]string{e.legacy, e.authenticated}
	}
	var missing error
	for i, p := range paths {
		resp, err := u.ask(ctx, method, u.base+p+suffix)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusNotFound {
			if i == 1 && p == e.legacy && resp.StatusCode == http.StatusOK {
				u.legacyUntil.Store(u.now().Add(legacyFor).UnixNano())
			} else if p == e.authenticated {
				u.legacyUntil.Store(0)
			}
			return u.accept(resp)
		}
		code := errorCode(resp)
		missing = failed(http.StatusNotFound, "the homeserver does not have the media")
		if p == e.authenticated && (code != "M_UNRECOGNIZED" || i == 1) {
			return nil, missing
		}
	}
	return nil, missing
}

// ask sends one request to the homeserver, with the token, and follows redirects without it.
func (u *upstream) ask(ctx context.Context, method, target string) (*http.Response, error) {
	client, token := u.homeserver, u.token
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, method, target, nil)
		if err != nil {
			return nil, err
		}
		// Nothing of the reader's request is passed on. An encoding would make lengths and ranges mean something else.
		req.Header.Set("Accept-Encoding", "identity")
		req.Header.Set("User-Agent", upstreamAgent)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusTemporaryRedirect && resp.StatusCode != http.StatusPermanentRedirect {
			return resp, nil
		}
		next, err := u.next(resp, hop)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		// MSC3916: what a redirect leads to needs no authentication. So the token goes nowhere, not even back to the same host.
		client, token, target = u.redirect, "", next
	}
}

// next checks a redirect and returns where it leads.
func (u *upstream) next(resp *http.Response, hop int) (string, error) {
	if hop >= maxHops {
		return "", failed(http.StatusBadGateway, "the homeserver redirects more than %d times", maxHops)
	}
	loc, err := resp.Location()
	if err != nil {
		return "", failed(http.StatusBadGateway, "the homeserver redirects to no address")
	}
	switch {
	case loc.Scheme != "https" && (loc.Scheme != "http" || !u.redirectHTTP):
		return "", failed(http.StatusBadGateway, "the homeserver redirects to an address that is not https")
	case loc.Host == "" || loc.User != nil:
		return "", failed(http.StatusBadGateway, "the homeserver redirects to an address that is not plain")
	}
	return loc.String(), nil
}

// accept makes an answer the media, or a failure.
func (u *upstream) accept(resp *http.Response) (*media, error) {
	fail := func(status int, format string, args ...any) (*media, error) {
		resp.Body.Close()
		return nil, failed(status, format, args...)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
	case (code == http.StatusUnauthorized || code == http.StatusForbidden) && resp.Request.Header.Get("Authorization") == "":
		// It was never shown the token. A signature of a media store is often for GET alone, so HEAD ends here.
		return fail(http.StatusBadGateway, "where the homeserver redirects to refuses the media: status %d", code)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		u.denied()
		return fail(http.StatusBadGateway, "the homeserver refuses the token: status %d", code)
	case code == http.StatusTooManyRequests:
		return fail(http.StatusServiceUnavailable, "the homeserver limits the bridge's requests")
	default:
		return fail(http.StatusBadGateway, "%w: %d", errStatus, code)
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return fail(http.StatusBadGateway, "the homeserver sends the media in an encoding nobody asked for")
	}
	if resp.ContentLength > u.maxSize {
		return fail(http.StatusBadGateway, "%w: %d bytes of %d", errTooLong, resp.ContentLength, u.maxSize)
	}
	return &media{
		body: resp.Body, size: resp.ContentLength, contentType: resp.Header.Get("Content-Type"), left: u.maxSize,
	}, nil
}

// errorCode reads the Matrix error code of an answer and closes it.
func errorCode(resp *http.Response) string {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return ""
	}
	var said struct {
		Code string `json:"errcode"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	return said.Code
}

// Read reads media. It fails when the homeserver sends nothing for the stall limit, ends before the length it gave, or goes past the size limit.
func (m *media) Read(p []byte) (int, error) {
	m.watch.start()
	n, err := m.body.Read(p)
	m.watch.stop()
	m.pulled += int64(n)
	if m.left -= int64(n); m.left < 0 {
		return 0, errTooLong
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(m.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (m *media) about() (int64, string) { return m.size, m.contentType }

func (m *media) fetched() int64 { return m.pulled }

func (m *media) Close() error {
	m.end()
	return m.body.Close()
}

// watchdog calls bite when it has been running for its limit. Time spent on a slow reader is not the homeserver's, so it runs only while the
// homeserver is waited for.
type watchdog struct {
	limit time.Duration
	timer *time.Timer
}

func startWatchdog(limit time.Duration, bite func()) *watchdog {
	return &watchdog{limit, time.AfterFunc(limit, bite)}
}

func (w *watchdog) start() { w.timer.Reset(w.limit) }
func (w *watchdog) stop()  { w.timer.Stop() }
