package lanes

import "encoding/binary"

// Packing says how items wait in a lane: as bytes, a few for each, because a backlog may be long and nothing is done with
// an item until its turn comes.
type Packing[T any] struct {
	// Append writes an item after b.
	Append func(b []byte, item T) []byte
	// Next reads the item that b begins with, and gives how many bytes it takes.
	Next func(b []byte) (item T, size int)
}

// Numbers is the packing of numbers from 0 on, such as the IDs of rows.
var Numbers = Packing[int64]{
	Append: func(b []byte, n int64) []byte { return binary.AppendUvarint(b, uint64(n)) },
	Next: func(b []byte) (int64, int) {
		n, size := binary.Uvarint(b)
		return int64(n), size
	},
}
