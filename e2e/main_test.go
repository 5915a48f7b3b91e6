package e2e

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if builtBridge != "" {
			os.Remove(builtBridge)
		}
		os.Exit(status)
	}))
}
