package ports_test

import (
	"net"
	"runtime"
	"testing"

	"github.com/trestle-bridge/trestle/internal/ports"
)

func TestReserve_ServersComeAndGo_AndNobodyElseIsGivenThePort(t *testing.T) {
	address, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for range 3 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Error("somebody is there before anybody listens")
		}
		server, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		server.Close()
	}
	if runtime.GOOS != "linux" {
		return
	}
	// Whoever asks for any port is given another.
	var all []net.Listener
	defer func() {
		for _, l := range all {
			l.Close()
		}
	}()
	for range 500 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			break // no more descriptors, or no more ports
		}
		all = append(all, l)
		if l.Addr().String() == address {
			t.Fatal("the port was given to somebody else")
		}
	}
}
