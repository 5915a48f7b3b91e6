package main

import (
	"os"
	"strings"
	"testing"
)

// The README shows this bridge; it must be this bridge, and stay under 100 lines.
func TestEmbed_READMEShowsThisProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("README.md does not show docs/embed/main.go as it is; run: make readme")
	}
	if n := strings.Count(string(program), "\n"); n >= 100 {
		t.Errorf("the smallest bridge has %d lines", n)
	}
}
