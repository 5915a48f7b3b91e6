//go:build goolm && !cgo

package crypto_test

const testDriver = "sqlite"
