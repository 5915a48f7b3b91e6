package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	maxFresh  = time.Hour   // longest max-age
	lookAgain = time.Second // how often a stream under way asks whether it was revoked
)

var errRevoked = errors.New("the link was revoked")

// target is the media that a link means, settled by its record or by its claims.
type target struct {
	server, mediaID string
	name            string
	mime            string // as the sender declared it; "": as the homeserver declares it
	disposition     string // what the answer may be at most
	expires         time.Time

	// revoked tells whether the link still stands.
	revoked func(ctx context.Context) (bool, error)
}

// etag is strong: the bytes behind an mxc:// address never change.
func (t *target) etag() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s:%s", len(t.server), t.server, t.mediaID))
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// serve answers with the media, or with why not.
func (s *Server) serve(ctx context.Context, x *exchange, t *target) {
	etag := t.etag()
	h := x.w.Header()
	fresh := func() {
		h.Set("ETag", etag)
		h.Set("Cache-Control", "private, max-age="+strconv.FormatInt(s.maxAge(t), 10))
	}
	switch precondition(x.r.Header, etag) {
	case http.StatusNotModified:
		fresh()
		x.begin(http.StatusNotModified)
		return
	case http.StatusPreconditionFailed:
		x.refuse(http.StatusPreconditionFailed, nil)
		return
	}

	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	m, head, err := s.begin(ctx, x, t, *buffer)
	if err != nil {
		s.refuseFetch(ctx, x, err)
		return
	}
	defer m.Close()

	declared := t.mime
	if declared == "" {
		declared = m.contentType
	}
	contentType, disposition := settleType(declared, head)
	if t.disposition != inline {
		disposition = attachment
	}
	part, verdict := byteRange{0, m.size}, rangeNone
	if m.size >= 0 && rangeApplies(x.r.Header, etag) {
		if p, v := parseRange(x.r.Header.Get("Range"), m.size); v != rangeNone {
			part, verdict = p, v
		}
	}
	if verdict == rangeUnmet {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(m.size, 10))
		x.refuse(http.StatusRequestedRangeNotSatisfiable, nil)
		return
	}
	fresh()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", contentDisposition(disposition, t.name))
	if disposition == inline && (strings.HasPrefix(contentType, "video/") || strings.HasPrefix(contentType, "audio/")) {
		// A browser that opens a film by itself makes a page around it, and the page may load nothing else.
		h.Set("Content-Security-Policy", "sandbox; default-src 'none'; media-src 'self'")
	}
	status := http.StatusOK
	if m.size >= 0 {
		h.Set("Accept-Ranges", "bytes")
		h.Set("Content-Length", strconv.FormatInt(part.length, 10))
	}
	if verdict == rangeOne {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, m.size))
	}
	x.begin(status)
	if x.r.Method == http.MethodHead {
		return
	}
	if err := s.copy(ctx, x, t, m, head, *buffer, part); err != nil {
		x.cause = err
		// The reader was promised more. Only a broken connection tells it that this is not the whole file.
		panic(http.ErrAbortHandler)
	}
}

// begin opens the media and reads enough of it to know its type: into buffer, at most all of it. For HEAD it stops at the homeserver's headers where
// those decide.
func (s *Server) begin(ctx context.Context, x *exchange, t *target, buffer []byte) (*media, []byte, error) {
	if x.r.Method == http.MethodHead {
		m, err := s.upstream.open(ctx, http.MethodHead, t.server, t.mediaID)
		if err == nil {
			declared := t.mime
			if declared == "" {
				declared = m.contentType
			}
			if !needsBytes(declared) && m.size >= 0 {
				return m, nil, nil
			}
			m.Close()
		}
		// An error has no body here that would say which endpoint the homeserver knows, and the type may hang on the first bytes:
		// a GET is begun and given up.
	}
	m, err := s.upstream.open(ctx, http.MethodGet, t.server, t.mediaID)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for n < sniffSize && err == nil {
		var got int
		got, err = m.Read(buffer[n:])
		n += got
	}
	if err != nil && err != io.EOF {
		m.Close()
		return nil, nil, readFailure(err)
	}
	if err == io.EOF && m.size < 0 {
		m.size = int64(n)
	}
	return m, buffer[:n], nil
}

// copy sends the part of the media that was asked for, of which head was read already into buffer.
func (s *Server) copy(ctx context.Context, x *exchange, t *target, m *media, head, buffer []byte, part byteRange) error {
	skip, left := part.start, part.length // left < 0: until the end
	looked := time.Now()
	got, err := len(head), error(nil)
	for {
		data := buffer[:got]
		if n := min(skip, int64(len(data))); n > 0 {
			skip -= n
			data = data[n:]
		}
		if left >= 0 && int64(len(data)) > left {
			data = data[:left]
		}
		if len(data) > 0 {
			if werr := s.send(x, data); werr != nil {
				x.cut = "reader"
				return fmt.Errorf("send to the reader: %w", werr)
			}
			if left >= 0 {
				left -= int64(len(data))
			}
		}
		switch {
		case left == 0:
			return nil
		case err == io.EOF && left < 0:
			return nil
		case err == io.EOF:
			x.cut = "homeserver"
			return fmt.Errorf("the homeserver's answer ends %d bytes early", left)
		case err != nil:
			switch {
			case errors.Is(err, errTooLong):
				x.cut = "size"
			case errors.Is(err, errTotal):
				x.cut = "time"
			case ctx.Err() != nil:
				x.cut = "reader"
			default:
				x.cut = "homeserver"
			}
			return fmt.Errorf("read from the homeserver: %w", err)
		}
		if time.Since(looked) >= lookAgain {
			// A store that does not answer for a moment is no reason to break streams off; the next look decides.
			if revoked, rerr := t.revoked(ctx); rerr == nil && revoked {
				x.cut = "revoked"
				return errRevoked
			}
			looked = time.Now()
		}
		got, err = m.Read(buffer)
	}
}

// send writes one chunk. The reader has the stall limit to take it.
func (s *Server) send(x *exchange, data []byte) error {
	// Recorders in tests have no deadline, and are not slow.
	_ = x.control.SetWriteDeadline(time.Now().Add(s.stall))
	n, err := x.w.Write(data)
	x.bytes += int64(n)
	if x.first == 0 && n > 0 {
		x.first = max(time.Since(x.began), 1)
	}
	return err
}

func (s *Server) refuseFetch(ctx context.Context, x *exchange, err error) {
	var f *failure
	switch {
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

// needsBytes tells whether the first bytes have a say in the type.
func needsBytes(declared string) bool {
	t := baseType(declared)
	return inlineTypes[t] != nil || downloadTypes[t] != nil
}
