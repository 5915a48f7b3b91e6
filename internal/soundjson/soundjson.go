// Package soundjson looks into JSON that a full reader has found sound before. It goes by quotes and brackets only, at a
// fraction of what reading again would cost. In JSON that is not sound after all it finds less, or nonsense, and does no
// other harm.
package soundjson

import (
	"bytes"
	"iter"
)

// Members gives the names and values of an object in their order, as they are written: names with their quotes and escapes,
// both as parts of object. A name may come more than once.
func Members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		i := skipSpace(object, 1)
		for i < len(object) && object[i] == '"' {
			name := object[i:textEnd(object, i)]
			i = skipSpace(object, i+len(name)) // before the colon
			i = skipSpace(object, i+1)
			end := valueEnd(object, i)
			if i >= end || !yield(name, object[i:end:end]) {
				return
			}
			i = skipSpace(object, end) // before the comma
			i = skipSpace(object, i+1)
		}
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// textEnd gives the place behind the text that begins at i with its quote.
func textEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			break
		}
		escapes := 0
		for i+n-escapes > i && b[i+n-escapes-1] == '\\' {
			escapes++
		}
		if i += n; escapes%2 == 0 {
			return i + 1
		}
	}
	return len(b)
}

// valueEnd gives the place behind the value that begins at i.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = textEnd(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				return i + 1 + depth // the bracket of the object around belongs to nobody here
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}
