package appservice

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
)

func TestTransport_ACrowdAtOnce_OpensNoMoreConnectionsThanAHomeserverLetsWait(t *testing.T) {
	var connections, inside atomic.Int64
	full := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if inside.Add(1) == maxConnections {
			close(full)
		}
		<-full
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client := newHTTPClient(nil, &transport{log: zerolog.Nop()})
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for range 4 * maxConnections {
		all.Go(func() {
			resp, err := client.Get(server.URL)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	all.Wait()
	if n := connections.Load(); n > maxConnections {
		t.Errorf("%d connections, want at most %d", n, maxConnections)
	}
}
