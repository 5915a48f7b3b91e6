package proxy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// A cached file is one file: a header of a page's size, and then the bytes as the homeserver gave them, so ciphertext where the media is encrypted.
// Its name holds what names the bytes, hashed, and when they were fetched; no link, token, MAC or key is in either. A file gets its name when it is
// whole and on the disk; until then it is called partial-*, and such files are deleted at the start.

const (
	headerSize    = 4096
	headerMagic   = "TRMEDIA1"
	partialPrefix = "partial-"
	lockName      = "lock"
	maxTypeLength = 256
)

var errBadFile = errors.New("not a file of the cache")

// cacheKey names the bytes of one file, or of one thumbnail of it.
type cacheKey [16]byte

// keyOf makes the key. variant is empty for the file itself.
func keyOf(server, mediaID, variant string) (k cacheKey) {
	h := sha256.New()
	for _, s := range []string{server, mediaID, variant} {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(s)))
		h.Write(size[:])
		h.Write([]byte(s))
	}
	copy(k[:], h.Sum(nil))
	return k
}

func fileName(k cacheKey, fetched time.Time) string {
	return hex.EncodeToString(k[:]) + "-" + strconv.FormatInt(fetched.Unix(), 10)
}

func parseFileName(name string) (k cacheKey, fetched time.Time, ok bool) {
	key, at, found := strings.Cut(name, "-")
	raw, err := hex.DecodeString(key)
	if !found || err != nil || len(raw) != len(k) {
		return k, fetched, false
	}
	unix, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return k, fetched, false
	}
	copy(k[:], raw)
	return k, time.Unix(unix, 0), true
}

// header is what is known of the bytes that follow it.
type header struct {
	size        int64
	contentType string // as the homeserver declared it
	sum         [sha256.Size]byte
}

func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	binary.BigEndian.PutUint64(b[8:], uint64(h.size))
	copy(b[16:48], h.sum[:])
	contentType := h.contentType[:min(len(h.contentType), maxTypeLength)]
	binary.BigEndian.PutUint16(b[48:], uint16(len(contentType)))
	copy(b[50:], contentType)
	binary.BigEndian.PutUint32(b[headerSize-4:], crc32.ChecksumIEEE(b[:headerSize-4]))
	return b
}

func decodeHeader(b []byte) (h header, err error) {
	if len(b) != headerSize || string(b[:8]) != headerMagic || crc32.ChecksumIEEE(b[:headerSize-4]) != binary.BigEndian.Uint32(b[headerSize-4:]) {
		return h, errBadFile
	}
	h.size = int64(binary.BigEndian.Uint64(b[8:]))
	copy(h.sum[:], b[16:48])
	n := int(binary.BigEndian.Uint16(b[48:]))
	if n > maxTypeLength || h.size < 0 {
		return h, errBadFile
	}
	h.contentType = string(b[50 : 50+n])
	return h, nil
}
