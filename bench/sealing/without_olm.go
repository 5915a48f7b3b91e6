//go:build !goolm

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "sealing: built without encryption: build it with -tags goolm")
	os.Exit(1)
}
