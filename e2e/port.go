package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

var (
	portsMu sync.Mutex
	ports   = map[int]bool{}
)

// FreePort returns a port of 127.0.0.1 that nothing listens on and that no other call has returned. It lies below the
// range from which Linux takes the ports of outgoing connections, so that it is still free when a server that was
// stopped comes back to it.
func FreePort(tb testing.TB) int {
	tb.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := 18000 + rand.IntN(14000)
		if ports[port] {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		listener.Close()
		ports[port] = true
		return port
	}
	tb.Fatal("no free port on 127.0.0.1")
	return 0
}
