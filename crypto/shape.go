//go:build goolm

package crypto

import (
	"crypto/ecdh"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"
)

// What others send is looked at before it comes near the store: SQLite takes everything, but PostgreSQL no text that has NUL in it or is longer than its
// column, and what it refuses would be tried again and again in front of all that comes after it.

const (
	// mostName is how many bytes an ID of Matrix has at most (specification, appendices, "Identifier grammar"), and mostText a text for people.
	mostName, mostText = 255, 1000
	// mostChain is through how many hands a forwarded key may have gone.
	mostChain = 100
)

// isKey says whether a text is an Ed25519 or Curve25519 key, or the ID of a session, which is a key as well: 32 bytes in unpadded base64.
func isKey[T ~string](text T) bool { return isBase64(string(text), 43, 32) }

// isCurveKey says whether a text is a Curve25519 key with which a secret can be shared. Of the points that are none some give the same secret with every key, which
// nobody can write with: the sessions with them would have to be left out later, one by one (RFC 7748, section 6.1). Each key has one spelling: a number below
// 2^255-19, since the same point under another name would be another sender.
func isCurveKey[T ~string](text T) bool {
	if !isKey(text) {
		return false
	}
	raw, err := base64.RawStdEncoding.DecodeString(string(text))
	if err != nil || !isReduced(raw) {
		return false
	}
	public, err := ecdh.X25519().NewPublicKey(raw)
	if err == nil {
		_, err = anyPrivate.ECDH(public)
	}
	return err == nil
}

// anyPrivate is a private key, for what is true of all.
var anyPrivate, _ = ecdh.X25519().NewPrivateKey(make([]byte, 32))

// isReduced says whether 32 bytes, the lowest first, are a number below 2^255-19.
func isReduced(number []byte) bool {
	if number[31] != 0x7f {
		return number[31] < 0x7f
	}
	for _, b := range number[1:31] {
		if b != 0xff {
			return true
		}
	}
	return number[0] < 0xed
}

// isSignature says whether a text is an Ed25519 signature: 64 bytes in base64, which some pad.
func isSignature(text string) bool { return isBase64(strings.TrimSuffix(text, "=="), 86, 64) }

// isBase64 takes one spelling of each value, since texts are compared: neither the bits that count for nothing at the end, nor padding, nor line breaks, which the
// decoder skips.
func isBase64(text string, chars, size int) bool {
	raw, err := base64.RawStdEncoding.Strict().DecodeString(text)
	return err == nil && len(text) == chars && len(raw) == size
}

// mostDepth is how deep JSON may be nested whose signatures are checked: mautrix makes it canonical first, for which it takes seconds where 64 KB are all brackets. A device
// has three levels.
const mostDepth = 10

func isDeep(raw []byte) bool {
	depth, quoted := 0, false
	for n := 0; n < len(raw); n++ {
		switch c := raw[n]; {
		case quoted && c == '\\':
			n++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > mostDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// isName says whether a text can be an ID.
func isName[T ~string](text T) bool { return text != "" && isText(text, mostName) }

func isText[T ~string](text T, most int) bool {
	return len(text) <= most && utf8.ValidString(string(text)) && !strings.ContainsRune(string(text), 0)
}

// wellFormed says what is wrong with a device that a homeserver names, or nothing. A name that cannot be kept is left out: it is for people.
func wellFormed(device *id.Device) (wrong string) {
	switch {
	case !isName(device.DeviceID):
		return "its ID is too long, or has NUL in it"
	case !isCurveKey(device.IdentityKey):
		return "its curve25519 key is none"
	case !isKey(device.SigningKey):
		return "its ed25519 key is none"
	}
	if !isText(device.Name, mostText) {
		device.Name = string(device.DeviceID)
	}
	return ""
}
