package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

const (
	macVersion = 1
	macSize    = 16 // bytes of HMAC-SHA256 kept; not configurable, because a short MAC can be guessed

	tokenSize   = 1 + 8 + macSize // key ID, record number, MAC
	tokenLength = 34              // characters of base64url
)

// purpose keeps a MAC made for one form of link from holding for the other.
type purpose string

const (
	purposeShort         purpose = "short"
	purposeSelfContained purpose = "self-contained"
)

// claims is everything a link says, and everything its MAC covers.
// A short link says its key and its record and leaves the rest to the record; a self-contained one says all but the record.
type claims struct {
	purpose     purpose
	key         uint8
	record      int64
	server      string
	mediaID     string
	room        string
	event       string
	created     int64 // Unix milliseconds; 0: not said
	expires     int64 // Unix seconds; 0: never
	mime        string
	disposition string // "inline" or "attachment"; what the answer may be at most
	name        string
}

type mac [macSize]byte

// sum is the MAC over the claims. Each field goes in behind its length, so that no two different claims have one encoding.
func (c *claims) sum(secret []byte) mac {
	h := hmac.New(sha256.New, secret)
	var size [4]byte
	field := func(b []byte) {
		binary.BigEndian.PutUint32(size[:], uint32(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	number := func(n int64) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		field(b[:])
	}
	field([]byte{macVersion})
	field([]byte(c.purpose))
	field([]byte{c.key})
	field([]byte(c.server))
	field([]byte(c.mediaID))
	number(c.record)
	field([]byte(c.room))
	field([]byte(c.event))
	number(c.created)
	number(c.expires)
	field([]byte(c.mime))
	field([]byte(c.disposition))
	field([]byte(c.name))
	var out mac
	copy(out[:], h.Sum(nil))
	return out
}

// holds tells in constant time whether m is the MAC of the claims.
func (c *claims) holds(secret []byte, m mac) bool {
	want := c.sum(secret)
	return hmac.Equal(want[:], m[:])
}

// strict base64: an encoding with other spare bits would be a second token for the same record.
var tokenEncoding = base64.RawURLEncoding.Strict()

func formatToken(key uint8, record int64, m mac) string {
	var b [tokenSize]byte
	b[0] = key
	binary.BigEndian.PutUint64(b[1:9], uint64(record))
	copy(b[9:], m[:])
	return tokenEncoding.EncodeToString(b[:])
}

func parseToken(s string) (key uint8, record int64, m mac, ok bool) {
	if len(s) != tokenLength {
		return 0, 0, m, false
	}
	var b [tokenSize + 1]byte // DecodedLen of 34 is 25; one more catches a surprise
	n, err := tokenEncoding.Decode(b[:], []byte(s))
	if err != nil || n != tokenSize {
		return 0, 0, m, false
	}
	record = int64(binary.BigEndian.Uint64(b[1:9]))
	if record <= 0 {
		return 0, 0, m, false
	}
	copy(m[:], b[9:tokenSize])
	return b[0], record, m, true
}

func formatMAC(m mac) string { return tokenEncoding.EncodeToString(m[:]) }

func parseMAC(s string) (m mac, ok bool) {
	if len(s) != tokenEncoding.EncodedLen(macSize) {
		return m, false
	}
	n, err := tokenEncoding.Decode(m[:], []byte(s))
	return m, err == nil && n == macSize
}
