// Package payload is the bytes that the media proxy is measured with: any number of them, which every process makes for
// itself and whose every byte can be checked where it arrives, without a file of that size in memory.
package payload

import (
	"bytes"
	"io"
	"math/rand/v2"
)

const (
	// period is no power of two, so that a piece that was swapped, doubled or left out is noticed.
	period = 1<<20 + 7
	// Piece is the most that Check and At take, in bytes.
	Piece = 256 << 10

	pngMagic = "\x89PNG\r\n\x1a\n" // to a proxy that looks, a picture
)

var table = func() []byte {
	b := make([]byte, period+Piece)
	random := rand.NewPCG(1, 2)
	for i := range period {
		b[i] = byte(random.Uint64() >> 32)
	}
	copy(b, pngMagic)
	copy(b[period:], b)
	return b
}()

// At gives n bytes of the payload from an offset on. They must not be changed. n is at most Piece.
func At(offset int64, n int) []byte {
	at := int(offset % period)
	return table[at : at+n]
}

// Check tells whether data, at most Piece long, is what the payload has at an offset.
func Check(data []byte, offset int64) bool { return bytes.Equal(data, At(offset, len(data))) }

// Write writes the first size bytes.
func Write(w io.Writer, size int64) error {
	for at := int64(0); at < size; {
		n := min(size-at, Piece)
		if _, err := w.Write(At(at, int(n))); err != nil {
			return err
		}
		at += n
	}
	return nil
}
