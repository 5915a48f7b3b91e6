//go:build !linux || !(amd64 || arm64)

package main

import (
	"testing"

	"github.com/trestle-bridge/trestle/internal/notrun"
)

func TestSink_PowerLost_LosesNothing(t *testing.T) {
	notrun.Skip(t, "a loss of power is simulated on Linux only, with amd64 or arm64")
}
