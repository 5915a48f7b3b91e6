package bridge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
)

// deriveTxnID makes the transaction ID of a request from what the request is, so that the same thing asked twice is the
// same request. It is unique over all ghosts, because Synapse tells transaction IDs of an appservice's users apart only
// by path. Parts are length-prefixed: no two different lists give the same ID.
func deriveTxnID(parts ...string) string {
	h := sha256.New()
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return "t" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:24])
}

// assignID makes an ID for something that its network gave none.
func assignID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return "assigned-" + hex.EncodeToString(b[:])
}
