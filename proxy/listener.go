package proxy

import (
	"net"
	"net/netip"
	"sync"
)

const (
	// maxConns bounds the connections of the listener: more wait until one is closed. A request waits for its place behind that, see gate.
	maxConns = 4096
	// maxConnsPerReader bounds those of one address (IPv6: one /64): more than one reader can have requests that are served or wait. Reverse proxies that
	// are trusted have no such bound.
	maxConnsPerReader = 256
)

// listener bounds connections, so that nobody can hold them all, and makes each a conn.
type listener struct {
	net.Listener
	trusted []netip.Prefix
	places  chan struct{}
	closed  chan struct{}
	close   sync.Once

	mu     sync.Mutex
	counts map[netip.Addr]int // an address leaves with its last connection
}

func newListener(l net.Listener, trusted []netip.Prefix) *listener {
	return &listener{
		Listener: l, trusted: trusted, places: make(chan struct{}, maxConns), closed: make(chan struct{}), counts: make(map[netip.Addr]int),
	}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case l.places <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
		inner, err := l.Listener.Accept()
		if err != nil {
			<-l.places
			return nil, err
		}
		addr := peerOf(inner.RemoteAddr().String())
		if !l.enter(addr) {
			<-l.places
			_ = inner.Close()
			continue
		}
		forget := sync.OnceFunc(func() { l.leave(addr); <-l.places })
		if tcp, ok := inner.(*net.TCPConn); ok {
			return &conn{TCPConn: tcp, forget: forget, ended: make(chan struct{}, 1)}, nil
		}
		return &otherConn{inner, forget}, nil
	}
}

func (l *listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// enter counts a connection, if its reader may have one more.
func (l *listener) enter(addr netip.Addr) bool {
	if !addr.IsValid() || within(addr, l.trusted) {
		return true
	}
	addr = networkOf(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts[addr] >= maxConnsPerReader {
		return false
	}
	l.counts[addr]++
	return true
}

func (l *listener) leave(addr netip.Addr) {
	if !addr.IsValid() || within(addr, l.trusted) {
		return
	}
	addr = networkOf(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts[addr]--; l.counts[addr] <= 0 {
		delete(l.counts, addr)
	}
}

// otherConn is a connection that is not TCP.
type otherConn struct {
	net.Conn
	forget func()
}

func (c *otherConn) Close() error {
	defer c.forget()
	return c.Conn.Close()
}
