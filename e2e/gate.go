package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Gate is the bridge's way to an IRC server, which a test can close: to the bridge, the server is away then. So a test can
// have its users in a channel before the bridge comes back to it, however long they take.
type Gate struct {
	Address string // host:port

	tb      testing.TB
	running sync.WaitGroup

	mu       sync.Mutex
	to       string
	listener net.Listener // nil while the gate is closed
	conns    map[net.Conn]bool
}

// OpenGate opens a gate to an address. It is closed for good when the test ends.
func OpenGate(tb testing.TB, to string) *Gate {
	tb.Helper()
	g := &Gate{Address: loopback(FreePort(tb)), tb: tb, to: to, conns: map[net.Conn]bool{}}
	g.Open()
	tb.Cleanup(func() {
		g.Close()
		g.running.Wait()
	})
	return g
}

// Open lets everybody through.
func (g *Gate) Open() {
	g.tb.Helper()
	listener, err := net.Listen("tcp", g.Address)
	if err != nil {
		g.tb.Fatalf("opening the gate at %s: %v", g.Address, err)
	}
	g.mu.Lock()
	g.listener = listener
	g.mu.Unlock()
	g.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			g.running.Go(func() { g.pass(listener, conn) })
		}
	})
}

// Turn has it lead to another address, for who comes from now on.
func (g *Gate) Turn(to string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.to = to
}

// Close cuts whoever is in it, and lets nobody through.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		g.listener.Close()
	}
	g.listener = nil
	for conn := range g.conns {
		conn.Close()
	}
}

// pass carries bytes both ways until one side ends.
func (g *Gate) pass(through net.Listener, conn net.Conn) {
	defer conn.Close()
	g.mu.Lock()
	to := g.to
	g.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	g.mu.Lock()
	if g.listener != through {
		g.mu.Unlock()
		return // it was closed meanwhile
	}
	g.conns[conn], g.conns[server] = true, true
	g.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, server)
		conn.Close()
	})
	_, _ = io.Copy(server, conn)
	server.Close()
	back.Wait()
	g.mu.Lock()
	delete(g.conns, conn)
	delete(g.conns, server)
	g.mu.Unlock()
}
