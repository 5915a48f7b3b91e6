package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// answerWithin bounds the wait for an answer. Synapse waits a minute.
const answerWithin = time.Minute

// Conn is one HTTP/1.1 connection that carries one request at a time.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to an appservice at host:port.
func Dial(addr string) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (c *Conn) Close() error { return c.conn.Close() }

// Send sends a request and returns nil when it was answered 200. After an error that is not a [StatusError] the
// connection is of no further use.
func (c *Conn) Send(r *Request) error {
	if err := c.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	if _, err := c.conn.Write(r.bytes); err != nil {
		return fmt.Errorf("send transaction %d: %w", r.ID, err)
	}
	status, body, err := c.answer()
	if err != nil {
		return fmt.Errorf("answer to transaction %d: %w", r.ID, err)
	}
	if status != 200 {
		return fmt.Errorf("transaction %d: %w", r.ID, &StatusError{Status: status, Body: body})
	}
	return nil
}

// StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %.200s", e.Status, e.Body) }

var errAnswer = errors.New("not an HTTP answer that is understood here")

// answer reads an answer with a Content-Length, which is what appservices send for a transaction. It does without
// net/http, which would take more of the processor than some of what is measured.
func (c *Conn) answer() (status int, body string, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, "", err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, "", fmt.Errorf("%w: it starts %q", errAnswer, line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, "", fmt.Errorf("%w: it starts %q", errAnswer, line)
	}
	length := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, "", err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, "", fmt.Errorf("%w: Content-Length %q", errAnswer, value)
			}
		}
	}
	if length < 0 || length > 1<<20 {
		return 0, "", fmt.Errorf("%w: Content-Length is %d", errAnswer, length)
	}
	if status == 200 {
		_, err = c.in.Discard(length)
		return status, "", err
	}
	b := make([]byte, length)
	_, err = io.ReadFull(c.in, b)
	return status, string(b), err
}
