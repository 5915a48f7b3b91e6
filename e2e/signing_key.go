package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// signingKey makes the content of a homeserver's signing key file: algorithm, version, and the seed in unpadded base64.
func signingKey() string {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return fmt.Sprintf("ed25519 a_test %s\n", base64.RawStdEncoding.EncodeToString(private.Seed()))
}
