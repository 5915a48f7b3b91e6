//go:build linux && (amd64 || arm64)

package powerloss

import (
	"math/rand/v2"
)

// Loss says what becomes of what was not synced. The zero Loss forgets all of it.
type Loss struct {
	// Survive is the probability (0 to 1) that a block, a truncation or a change of the folder is kept all the same.
	Survive float64
	// Block is the size in bytes, at multiples of itself in the file, in which writes are kept or lost: 4096 for a file
	// system's, 512 for a disk's, which tears pages. 0 is 4096.
	Block int64
}

func (l Loss) keeps() bool { return l.Survive > 0 && rand.Float64() < l.Survive }

// A change is a write, or a truncation when data is nil.
type change struct {
	offset int64 // or the new length
	data   []byte
}

func (c change) apply(content []byte) []byte {
	if c.data == nil {
		return resized(content, c.offset)
	}
	if end := c.offset + int64(len(c.data)); end > int64(len(content)) {
		content = resized(content, end)
	}
	copy(content[c.offset:], c.data)
	return content
}

func resized(content []byte, n int64) []byte {
	if n <= int64(len(content)) {
		return content[:n]
	}
	return append(content, make([]byte, n-int64(len(content)))...)
}

// split cuts a write at the borders of blocks.
func (c change) split(block int64) []change {
	if c.data == nil {
		return []change{c}
	}
	var parts []change
	for len(c.data) > 0 {
		n := min(block-c.offset%block, int64(len(c.data)))
		parts = append(parts, change{c.offset, c.data[:n]})
		c = change{c.offset + n, c.data[n:]}
	}
	return parts
}

// remains gives what is left of a file's content, and how many parts of its changes are not.
func (l Loss) remains(durable []byte, pending []change) (content []byte, forgotten int) {
	block := l.Block
	if block == 0 {
		block = 4096
	}
	content = append([]byte(nil), durable...)
	for _, c := range pending {
		for _, part := range c.split(block) {
			if l.keeps() {
				content = part.apply(content)
			} else {
				forgotten++
			}
		}
	}
	return content, forgotten
}
