//go:build !goolm

package soak

import "testing"

func killSecret(t *testing.T, _ string, _ uint64, _ int) {
	t.Fatal("this was built without encryption: build it with -tags goolm")
}
