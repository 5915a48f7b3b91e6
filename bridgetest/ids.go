package bridgetest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"math/big"
)

const (
	upperLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters      = upperLetters + "abcdefghijklmnopqrstuvwxyz"
)

func randomLetters(n int, alphabet string) string {
	out := make([]byte, n)
	for i := range out {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(err) // the machine has no randomness
		}
		out[i] = alphabet[k.Int64()]
	}
	return string(out)
}

// newEventID has the shape of room version 11's: 43 characters of URL-safe base64.
func newEventID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return "$" + base64.RawURLEncoding.EncodeToString(b[:])
}

// mustJSON encodes what always can be encoded.
func mustJSON(v any) json.RawMessage {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // Synapse leaves < and & as they are
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
