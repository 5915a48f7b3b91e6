package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain finds goroutines that outlive the tests, once they have passed. Connections that wait to be used again are closed first: they are the HTTP client's.
func TestMain(m *testing.M) {
	status := m.Run()
	if builtBridge != "" {
		os.Remove(builtBridge)
	}
	if status == 0 {
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: after the tests:", err)
			status = 1
		}
	}
	os.Exit(status)
}
