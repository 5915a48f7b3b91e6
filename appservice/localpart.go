package appservice

import (
	"fmt"
	"strings"

	"maunium.net/go/mautrix/id"
)

// maxUserID is the longest user ID, in bytes, with sigil and server name (specification, "Size limits").
const maxUserID = 255

const hexDigits = "0123456789abcdef"

// localpartByte says whether a byte may stand in the localpart of a user ID (specification, "User Identifiers").
func localpartByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case '.', '_', '=', '-', '/', '+':
		return true
	}
	return false
}

// EscapeLocalpart maps any string to the characters that a localpart may have: every byte outside of [a-z0-9._-/+], and
// "=" itself, becomes "=" and two lower-case hexadecimal digits (specification, "Mapping from other character sets").
// Upper-case letters are escaped like all others, so that names that differ in case stay different, and "_" stays as it
// is. The result is never longer than three times the input. [UnescapeLocalpart] takes it back.
//
// It neither cuts nor hashes: names that differ stay different. A name whose user ID would be longer than 255 bytes has no
// ghost; [Intent.EnsureRegistered] refuses it for good.
func EscapeLocalpart(s string) string {
	n := 0
	for i := range len(s) {
		if !localpartByte(s[i]) || s[i] == '=' {
			n++
		}
	}
	if n == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := range len(s) {
		if c := s[i]; localpartByte(c) && c != '=' {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// UnescapeLocalpart is the inverse of [EscapeLocalpart]. It refuses what EscapeLocalpart never writes, so that two
// localparts never mean the same string.
func UnescapeLocalpart(s string) (string, error) {
	if !strings.Contains(s, "=") {
		return s, checkCharacters(s)
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '=' {
			if !localpartByte(c) {
				return "", fmt.Errorf("localpart %q: byte %d is not allowed", s, i)
			}
			b.WriteByte(c)
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("localpart %q: the escape at byte %d is cut off", s, i)
		}
		hi, lo := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("localpart %q: the escape at byte %d is not two lower-case hexadecimal digits", s, i)
		}
		c = byte(hi<<4 | lo)
		if localpartByte(c) && c != '=' {
			return "", fmt.Errorf("localpart %q: the escape at byte %d stands for a byte that needs none", s, i)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}

func checkCharacters(localpart string) error {
	for i := range len(localpart) {
		if !localpartByte(localpart[i]) {
			return fmt.Errorf("localpart %q: byte %d is not one of a-z, 0-9 and ._=-/+ (see EscapeLocalpart)", localpart, i)
		}
	}
	return nil
}

// checkUserID holds a user ID to the grammar before a homeserver sees it: Synapse takes spaces, capitals and 265 bytes.
func checkUserID(user id.UserID, serverName string) error {
	rest, ok := strings.CutPrefix(string(user), "@")
	localpart, server, found := strings.Cut(rest, ":")
	switch {
	case !ok || !found:
		return fmt.Errorf("user ID %q: it must look like @name:%s", user, serverName)
	case server != serverName:
		return fmt.Errorf("user ID %q: it is not of this homeserver, %s", user, serverName)
	case localpart == "":
		return fmt.Errorf("user ID %q: the localpart is empty", user)
	case len(user) > maxUserID:
		return fmt.Errorf("user ID of %d bytes: the limit is %d", len(user), maxUserID)
	}
	return checkCharacters(localpart)
}
