// Package pipenet is a listener without a network. In a bubble of testing/synctest it lets a test see what the time limits
// of a server do, in no time and to the second: sockets do not wait in a bubble's time, pipes do.
//
//	l := pipenet.Listen()
//	go server.Serve(l)
//	conn := l.Dial()
//
// A [Net] is a whole network of such listeners, which a context carries to what is started with it: a bridge that runs with one
// opens no socket.
//
// It has no goroutines.
package pipenet

import (
	"net"
	"sync"
)

// Listener accepts what its own Dial makes.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Listen makes a listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial returns the client's end of a new connection, once the server has the other; nil after Close. A write returns when
// the server has read it all: there are no buffers.
func (l *Listener) Dial() net.Conn {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client
	case <-l.closed:
		return nil
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "pipe" }
func (address) String() string  { return "pipe" }
