package store

import (
	"fmt"

	"github.com/klauspost/compress/s2"
)

const (
	// packFrom is the length from which bodies are packed. The events of a transaction are much alike: it then takes a third or
	// less of the pages, and the disk has as much less to sync while the homeserver waits.
	packFrom = 4 << 10
	// maxPacking is the largest body for which the writer keeps the memory it packs into.
	maxPacking = 512 << 10
)

// pack makes a body smaller, where that is worth it. What it gives is overwritten by the next call.
func (w *writer) pack(body []byte) (stored []byte, packed bool) {
	if len(body) < packFrom {
		return body, false
	}
	into := w.packing
	if need := s2.MaxEncodedLen(len(body)); cap(into) < need {
		into = make([]byte, need)
		if len(body) <= maxPacking {
			w.packing = into
		}
	}
	small := s2.Encode(into[:cap(into)], body)
	if len(small) > len(body)-len(body)/8 {
		return body, false
	}
	return small, true
}

// unpack gives the body that pack made smaller, which has size bytes.
func unpack(stored []byte, size uint64) ([]byte, error) {
	n, err := s2.DecodedLen(stored)
	if err == nil && uint64(n) != size {
		err = fmt.Errorf("it has %d bytes, the index says %d", n, size)
	}
	var body []byte
	if err == nil {
		body, err = s2.Decode(nil, stored)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the packed body: %w", errIndex, err)
	}
	return body, nil
}
