package bridge_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(childVariable); config != "" {
		if err := runChild(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if arguments := os.Getenv(commandVariable); arguments != "" {
		os.Exit(runCommand(arguments))
	}
	goleak.VerifyTestMain(m)
}
