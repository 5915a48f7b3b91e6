package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	chunk     = 64 << 10
	maxFresh  = time.Hour       // longest max-age
	lookAgain = time.Second / 2 // how often a stream under way asks whether it was revoked
)

var errRevoked = errors.New("the link was revoked")

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// serve answers with the media, or with why not.
func (s *Server) serve(ctx context.Context, x *exchange, t *target) {
	etag := t.etag
	h := x.w.Header()
	fresh := func() {
		h["Etag"] = t.headers.etag
		h.Set("Cache-Control", "private, max-age="+strconv.FormatInt(s.maxAge(t), 10))
	}
	status := precondition(x.r.Header, etag)
	switch {
	case status == http.StatusNotModified && !namesAny(x.r.Header):
		fresh()
		x.begin(status)
		return
	case status == http.StatusPreconditionFailed:
		x.refuse(status, nil)
		return
	}

	ctx, end := s.follow(ctx, x, t)
	defer end()
	defer s.settleBytes(x, t)
	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	m, head, size, err := s.begin(ctx, x, t, *buffer)
	if err != nil {
		s.refuseFetch(ctx, x, err)
		return
	}
	defer m.Close()
	if status == http.StatusNotModified { // there is a file, whichever
		fresh()
		x.begin(status)
		return
	}

	contentType, disposition := settleType(t.declared(m), head)
	if t.disposition != inline {
		disposition = attachment
	}
	part, verdict := byteRange{0, size}, rangeNone
	if size >= 0 && rangeApplies(x.r.Header, etag) {
		if p, v := parseRange(x.r.Header.Get("Range"), size); v != rangeNone {
			part, verdict = p, v
		}
	}
	if verdict == rangeUnmet {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		x.refuse(http.StatusRequestedRangeNotSatisfiable, nil)
		return
	}
	fresh()
	h.Set("Content-Type", contentType)
	if h["Content-Disposition"] = t.headers.attachment; disposition == inline {
		h["Content-Disposition"] = t.headers.inline
	}
	if disposition == inline && (strings.HasPrefix(contentType, "video/") || strings.HasPrefix(contentType, "audio/")) {
		// A browser that opens a film by itself makes a page around it, and the page may load nothing else.
		h.Set("Content-Security-Policy", "sandbox; default-src 'none'; media-src 'self'")
	}
	status = http.StatusOK
	if size >= 0 {
		h.Set("Accept-Ranges", "bytes")
		h.Set("Content-Length", strconv.FormatInt(part.length, 10))
	}
	if verdict == rangeOne {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, size))
	}
	x.begin(status)
	if x.r.Method == http.MethodHead {
		return
	}
	if err := s.copy(ctx, x, t, m, head, *buffer, part); err != nil {
		x.cause = err
		x.abort()
	}
}

// begin opens the media and reads enough of it to know its type, into buffer. size is -1 where it is not known. For HEAD it stops at the homeserver's
// headers where those decide.
func (s *Server) begin(ctx context.Context, x *exchange, t *target, buffer []byte) (m content, head []byte, size int64, err error) {
	fetch := func(ctx context.Context) (*media, error) {
		if t.size != nil {
			return s.upstream.thumbnail(ctx, t.server, t.mediaID, t.size)
		}
		return s.upstream.open(ctx, http.MethodGet, t.server, t.mediaID)
	}
	if x.r.Method == http.MethodHead {
		if m = s.headers(ctx, t); m != nil {
			size, _ = m.about()
			return m, nil, size, nil
		}
	}
	switch {
	case t.file != nil:
		m, err = s.openEncrypted(ctx, x, t, fetch)
	case s.cache.keep:
		m, err = s.cache.open(ctx, t.key, fetch)
	default:
		m, err = fetch(ctx)
	}
	if err != nil {
		return nil, nil, 0, err
	}
	if t.file == nil {
		x.source = m
	}
	if f, ok := m.(*cachedFile); ok { // the rest is sent from where it is
		return f, f.head, f.size, nil
	}
	n := 0
	for n < sniffSize && err == nil {
		var got int
		got, err = m.Read(buffer[n:])
		n += got
	}
	if err != nil && err != io.EOF {
		m.Close()
		s.markTampered(t, err)
		if ctx.Err() != nil {
			return nil, nil, 0, err
		}
		return nil, nil, 0, readFailure(err)
	}
	if size, _ = m.about(); size < 0 && err == io.EOF {
		size = int64(n)
	}
	return m, buffer[:n], size, nil
}

func (s *Server) refuseFetch(ctx context.Context, x *exchange, err error) {
	var f *failure
	switch {
	case errors.Is(context.Cause(ctx), errRevoked):
		x.refuse(http.StatusGone, errRevoked)
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTotal): // nobody is there to be told
		x.cut, x.cause = "reader", err
		panic(http.ErrAbortHandler)
	case errors.As(err, &f):
		x.refuse(f.status, err)
	default:
		x.refuse(http.StatusBadGateway, err)
	}
}

// readFailure is for a body that broke before anything was sent.
func readFailure(err error) *failure {
	switch {
	case errors.Is(err, errTooLong):
		return &failure{http.StatusBadGateway, err}
	case errors.Is(err, errSlow), errors.Is(err, errTotal):
		return &failure{http.StatusGatewayTimeout, err}
	}
	return failed(http.StatusBadGateway, "read from the homeserver: %w", err)
}

// maxAge is how many seconds a browser may keep the answer: not beyond the link's end, so that a link that has ended has ended.
func (s *Server) maxAge(t *target) int64 {
	fresh := maxFresh
	if !t.expires.IsZero() {
		fresh = min(fresh, t.expires.Sub(s.now()))
	}
	return max(0, int64(fresh/time.Second))
}

// headers opens the media for its length and type only; nil when its bytes are needed for that, or an error hangs on them: an answer to HEAD has no
// body that would say which endpoint the homeserver knows.
func (s *Server) headers(ctx context.Context, t *target) content {
	if t.size != nil || needsBytes(t.mime) || t.file != nil && !s.mayOpen(t) {
		return nil
	}
	m := s.cache.peek(ctx, t.key)
	if m == nil {
		asked, err := s.upstream.open(ctx, http.MethodHead, t.server, t.mediaID)
		if err != nil {
			return nil
		}
		m = asked
	}
	if size, _ := m.about(); size < 0 || needsBytes(t.declared(m)) {
		m.Close()
		return nil
	}
	return m
}

// send writes one chunk. The reader has the stall limit to take it.
func (s *Server) send(ctx context.Context, x *exchange, t *target, data []byte) error {
	x.extend(s.patience())
	if ctx.Err() != nil { // looked at behind the deadline, which cut may have set before
		return context.Cause(ctx)
	}
	n, err := x.w.Write(data)
	if rest := x.release(); err == nil {
		err = rest
	}
	s.sent(x, t, int64(n))
	return err
}

// patience is how long a reader may take for 64 KiB: less while others wait for its place, so that slow readers cannot hold all places for long.
func (s *Server) patience() time.Duration {
	if s.gate.isCrowded(s.stall) {
		return s.stall / 8
	}
	return s.stall
}

func (s *Server) sent(x *exchange, t *target, n int64) {
	x.bytes += n
	s.meters.spend(x, t, n)
	if x.first == 0 && n > 0 {
		x.first = max(time.Since(x.began), 1)
	}
}

// settleBytes counts what the homeserver sent and the reader did not get: a range at the end of a file costs all of it where nothing is kept, and so does
// an encrypted file whose reader leaves before it was verified. Without that a few bytes to the reader could have the homeserver send any number.
func (s *Server) settleBytes(x *exchange, t *target) {
	if f, ok := x.source.(fetching); ok {
		s.meters.spend(x, t, max(f.fetched()-x.bytes, 0))
	}
}

// needsBytes tells whether the first bytes have a say in the type.
func needsBytes(declared string) bool {
	t := baseType(declared)
	return inlineTypes[t] != nil || downloadTypes[t] != nil
}
