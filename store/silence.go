package store

import (
	"context"
	"net"
	"time"
)

// silentAfter is how long writer and readers wait for a word of PostgreSQL's in the middle of a statement before they give the
// connection up. A host that is gone without a word, or a network that drops everything, would otherwise hold every
// commit until the kernel's time-outs: a quarter of an hour. It is longer than another process may keep the locks that a
// start waits for (see connect). What became of a COMMIT is then asked for on a new connection.
var silentAfter = time.Minute

// dialWithin bounds the making of a connection when the URI has no connect_timeout.
const dialWithin = 10 * time.Second

// silenceDialer makes connections that do not wait for ever.
type silenceDialer struct{ dialer net.Dialer }

func newSilenceDialer() silenceDialer {
	return silenceDialer{net.Dialer{Timeout: dialWithin, KeepAlive: 15 * time.Second}}
}

// Dial, DialTimeout and DialContext are what the driver asks for, depending on the URI.
func (d silenceDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d silenceDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d silenceDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &silenceConn{Conn: conn, after: silentAfter}, nil
}

// silenceConn fails when the other side is silent. The driver reads only while it awaits an answer, so that a connection
// that rests is left alone.
type silenceConn struct {
	net.Conn
	after time.Duration
}

func (c *silenceConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.after)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *silenceConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.after)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
