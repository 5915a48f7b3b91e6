package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/payload"
)

// download is what readers of one file got in a time.
type download struct {
	bytes   int64
	elapsed time.Duration
	cpu     time.Duration // of whoever served it
}

func (d download) bytesPerSecond() float64 { return float64(d.bytes) / d.elapsed.Seconds() }

// errWrongBytes ends the program: a fast proxy that gives out something else is no proxy.
var errWrongBytes = errors.New("these are not the bytes of the file")

// readers get a file over and over, each over a connection of its own, and look at every byte of it. What was under way when the
// time is up counts as far as it came, so that large files are measured as exactly as small ones.
func readers(ctx context.Context, c *child, path string, size int64, connections int, length time.Duration) (d download, err error) {
	cpu, begun := c.cpuWithChildren(), time.Now()
	end := begun.Add(length)
	var total atomic.Int64
	var running sync.WaitGroup
	errs := make([]error, connections)
	for i := range connections {
		running.Go(func() { errs[i] = readAgain(ctx, c.addr, path, size, end, &total) })
	}
	running.Wait()
	d = download{total.Load(), time.Since(begun), c.cpuWithChildren() - cpu}
	if err = errors.Join(errs...); err != nil {
		return d, fmt.Errorf("%d bytes of %s: %w", size, c.target.name, err)
	}
	return d, nil
}

func readAgain(ctx context.Context, addr, path string, size int64, end time.Time, total *atomic.Int64) error {
	r, err := dialReader(ctx, addr)
	if err != nil {
		return err
	}
	defer r.conn.Close()
	if err = r.conn.SetDeadline(end); err != nil {
		return err
	}
	for {
		err = r.get(path, size, total)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout() && !time.Now().Before(end):
			return nil
		case err != nil:
			return err
		}
	}
}

// reader is a connection that costs as little as one can that looks at all the bytes: it takes its share of the processors from
// whoever is measured.
type reader struct {
	conn   net.Conn
	in     *bufio.Reader
	buffer []byte
}

func dialReader(ctx context.Context, addr string) (*reader, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &reader{conn, bufio.NewReader(conn), make([]byte, payload.Piece)}, nil
}

func (r *reader) get(path string, size int64, total *atomic.Int64) error {
	if _, err := io.WriteString(r.conn, "GET "+path+" HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	length := int64(-1)
	for first := true; ; first = false {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		if first && !strings.HasPrefix(line, "HTTP/1.1 200 ") {
			return fmt.Errorf("the answer is %q", line)
		}
		if line == "" {
			break
		}
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
				return err
			}
		}
	}
	if length != size {
		return fmt.Errorf("%w: %d of them and not %d", errWrongBytes, length, size)
	}
	for at := int64(0); at < size; {
		n, err := r.in.Read(r.buffer[:min(size-at, int64(len(r.buffer)))])
		if !payload.Check(r.buffer[:n], at) {
			return fmt.Errorf("%w: from %d on", errWrongBytes, at)
		}
		at += int64(n)
		total.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

// once gets a file a single time.
func once(ctx context.Context, c *child, path string, size int64) (d download, err error) {
	cpu, begun := c.cpuWithChildren(), time.Now()
	var total atomic.Int64
	r, err := dialReader(ctx, c.addr)
	if err != nil {
		return d, err
	}
	defer r.conn.Close()
	if err = r.get(path, size, &total); err != nil {
		return d, fmt.Errorf("%d bytes of %s: %w", size, c.target.name, err)
	}
	return download{total.Load(), time.Since(begun), c.cpuWithChildren() - cpu}, nil
}

// asked is how often the upstream was asked for a file.
func (c *child) asked(ctx context.Context) (n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+"/count", nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = fmt.Fscan(resp.Body, &n)
	return n, err
}
