package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxPiece is how much of a file on disk is handed to the kernel at once.
const maxPiece = 1 << 20

// copy sends the part of the media that was asked for, of which head was read already into buffer.
func (s *Server) copy(ctx context.Context, x *exchange, t *target, m content, head, buffer []byte, part byteRange) error {
	skip, left := part.start, part.length // left < 0: until the end
	if f, ok := m.(*cachedFile); ok {
		switch {
		case f.file == nil:
			if err := s.send(ctx, x, t, f.head[part.start:part.start+part.length]); err != nil {
				return x.cutAt(ctx, err, "reader", "send to the reader")
			}
			return nil
		case x.conn != nil && canSendFiles:
			return s.sendFile(ctx, x, t, f, part)
		}
		f.at, skip, head = part.start, 0, nil
	}
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
			if werr := s.send(ctx, x, t, data); werr != nil {
				return x.cutAt(ctx, werr, "reader", "send to the reader")
			}
			if left >= 0 {
				left -= int64(len(data))
			}
		}
		switch {
		case left == 0, err == io.EOF && left < 0:
			return nil
		case err == io.EOF:
			x.cut = "homeserver"
			return fmt.Errorf("the homeserver's answer ends %d bytes early", left)
		case err != nil:
			s.markTampered(t, err)
			return x.cutAt(ctx, err, "homeserver", "read from the homeserver")
		}
		if err := s.look(ctx, x, t, &looked); err != nil {
			return err
		}
		if sk, ok := m.(skipper); ok && skip > 0 && sk.skip(skip) == nil {
			skip = 0
		}
		if len(data) > 0 && got < len(buffer) { // nothing more has come yet, and net/http keeps a short write back until something does
			_ = x.control.Flush() // who has gone is noticed at the next write
		}
		got, err = m.Read(buffer)
	}
}

// sendFile sends a part of a file, which need not pass through this process.
func (s *Server) sendFile(ctx context.Context, x *exchange, t *target, f *cachedFile, r byteRange) error {
	looked, taken := time.Now(), int64(0)
	p := &part{file: f.file, fd: f.fd, at: headerSize + r.start, left: r.length, moved: func(n int64) error {
		s.sent(x, t, n)
		if taken += n; taken >= chunk {
			taken = 0
			x.extend(s.patience())
		}
		if ctx.Err() != nil { // looked at behind the deadline, which cut may have set before
			return context.Cause(ctx)
		}
		return s.look(ctx, x, t, &looked)
	}}
	x.extend(s.patience())
	err := ctx.Err()
	if err == nil {
		_, err = io.Copy(x.w, p)
	}
	if err != nil {
		return x.cutAt(ctx, err, "reader", "send to the reader")
	}
	return nil
}

// look asks now and then whether the link still stands.
func (s *Server) look(ctx context.Context, x *exchange, t *target, last *time.Time) error {
	if time.Since(*last) < lookAgain {
		return nil
	}
	*last = time.Now()
	// A store that does not answer for a moment is no reason to break streams off; the next look decides.
	if revoked, err := t.revoked(ctx); err != nil || !revoked {
		return nil
	}
	x.cut = "revoked"
	s.cache.discard(t.key, "revoked")
	return errRevoked
}

// cutAt settles why an answer is cut short: what ended ctx, what the error says, or otherwise who was at work.
func (x *exchange) cutAt(ctx context.Context, err error, otherwise, doing string) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errRevoked), errors.Is(err, errRevoked):
		x.cut = "revoked"
		return errRevoked
	case errors.Is(err, errTampered):
		x.cut = "hash"
	case errors.Is(err, errTooLong):
		x.cut = "size"
	case errors.Is(err, errTotal), errors.Is(cause, errTotal):
		x.cut = "time"
	case cause != nil:
		x.cut = "reader"
	default:
		x.cut = otherwise
	}
	return fmt.Errorf("%s: %w", doing, err)
}
