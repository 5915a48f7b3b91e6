package e2e

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if builtBridge != "" {
		os.Remove(builtBridge)
	}
	os.Exit(status)
}
