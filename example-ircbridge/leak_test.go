package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main() // as a process that a test can kill
		return
	}
	goleak.VerifyTestMain(m)
}
