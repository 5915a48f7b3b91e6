package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	// headRoom is what net/http gathers before it writes: of a longer answer the first write has the headers and not all of the body.
	headRoom = 4 << 10
	// listenLater is how long an answer takes before it is worth to see whether its reader has hung up.
	listenLater = 20 * time.Millisecond
)

// conn is a reader's connection below net/http, which asks the kernel for less: the headers go with the first bytes of the body, the kernel sends files
// from where they are, and most answers are over before anybody listens whether the reader is still there.
type conn struct {
	*net.TCPConn
	forget func() // tells the listener that it is closed

	holding bool // what is written first waits for what comes next; of the handler's goroutine, as the rest of these
	held    []byte
	both    [2][]byte

	over  atomic.Bool   // the time for reading is over
	ended chan struct{} // has one when over was set
	timer *time.Timer
}

type connKey struct{}

// withConn lets a request find its connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// hold keeps the first short write back until the next one, or until release.
func (c *conn) hold() { c.holding = true }

func (c *conn) release() error {
	c.holding = false
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.TCPConn.Write(c.held)
	c.held = c.held[:0]
	return err
}

func (c *conn) Write(p []byte) (int, error) {
	switch {
	case len(c.held) > 0:
		c.both = [2][]byte{c.held, p}
		before := len(c.held)
		c.holding, c.held = false, c.held[:0]
		buffers := net.Buffers(c.both[:])
		n, err := buffers.WriteTo(c.TCPConn)
		return max(int(n)-before, 0), err
	case c.holding && len(p) <= headRoom:
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

// ReadFrom has the kernel send a part of a file.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if p, ok := r.(*part); ok && canSendFiles {
		return c.sendFile(p)
	}
	if err := c.release(); err != nil {
		return 0, err
	}
	return c.TCPConn.ReadFrom(r)
}

// Read for one byte is net/http's way to notice during an answer that its reader has hung up.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 1 && !c.answersLong() {
		return 0, os.ErrDeadlineExceeded
	}
	return c.TCPConn.Read(p)
}

// answersLong waits and tells whether the answer is still under way.
func (c *conn) answersLong() bool {
	if c.timer == nil {
		c.timer = time.NewTimer(listenLater)
	} else {
		c.timer.Reset(listenLater)
	}
	defer c.timer.Stop()
	for !c.over.Load() {
		select {
		case <-c.ended: // perhaps of an answer before this one
		case <-c.timer.C:
			return true
		}
	}
	return false
}

// SetReadDeadline in the past is how net/http ends the Read above.
func (c *conn) SetReadDeadline(t time.Time) error {
	over := !t.IsZero() && !t.After(time.Now())
	if c.over.Store(over); over {
		select {
		case c.ended <- struct{}{}:
		default:
		}
	}
	return c.TCPConn.SetReadDeadline(t)
}

func (c *conn) Close() error {
	defer c.forget()
	return c.TCPConn.Close()
}

// part is a part of a file on its way to a reader.
type part struct {
	file  *os.File
	fd    int
	at    int64
	left  int64
	moved func(n int64) error // tells of bytes that were sent; an error ends it
}

// Read is for the few bytes that net/http wants to see, and where the kernel does not send files.
func (p *part) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, io.EOF
	}
	n, err := p.file.ReadAt(b[:min(int64(len(b)), p.left)], p.at)
	if n > 0 {
		p.at += int64(n)
		p.left -= int64(n)
		return n, p.moved(int64(n))
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
