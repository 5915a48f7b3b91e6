package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxPiece is how much of a file on disk is handed to the kernel at once.
const maxPiece = 256 << 10

// copy sends the part of the media that was asked for, of which head was read already into buffer.
func (s *Server) copy(ctx context.Context, x *exchange, t *target, m content, head, buffer []byte, part byteRange) error {
	if f, ok := m.(*cachedFile); ok && f.isLarge() {
		if _, err := f.Seek(headerSize+part.start, io.SeekStart); err != nil {
			return x.cutAt(ctx, err, "homeserver", "read from the cache")
		}
		return s.copyFile(ctx, x, t, f, part.length)
	}
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
		got, err = m.Read(buffer)
	}
}

// copyFile sends left bytes of a file from where it stands. They need not pass through this process: net/http has the kernel send them where it can.
func (s *Server) copyFile(ctx context.Context, x *exchange, t *target, f *cachedFile, left int64) error {
	looked := time.Now()
	for piece := int64(chunk); left > 0; {
		n := min(piece, left)
		begun := time.Now()
		_ = x.control.SetWriteDeadline(begun.Add(s.stall * time.Duration(max(n/chunk, 1))))
		if ctx.Err() != nil {
			return x.cutAt(ctx, ctx.Err(), "reader", "send to the reader")
		}
		sent, err := io.CopyN(x.w, f.File, n)
		s.sent(x, t, sent)
		left -= sent
		if err != nil {
			return x.cutAt(ctx, err, "reader", "send to the reader")
		}
		if err := s.look(ctx, x, t, &looked); err != nil {
			return err
		}
		// A slow reader gets small pieces, so that it is soon seen when it stops.
		switch took := time.Since(begun); {
		case took < 100*time.Millisecond:
			piece = min(2*piece, maxPiece)
		case took > time.Second:
			piece = max(piece/2, chunk)
		}
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
	s.cache.discard(t.key(), "revoked")
	return errRevoked
}

// cutAt settles why an answer is cut short: what ended ctx, what the error says, or otherwise who was at work.
func (x *exchange) cutAt(ctx context.Context, err error, otherwise, doing string) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errRevoked):
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
