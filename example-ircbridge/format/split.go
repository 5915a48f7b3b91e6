package format

import (
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

func firstGrapheme(text string) (first, rest string) {
	first, rest, _, _ = uniseg.FirstGraphemeClusterInString(text, -1)
	return first, rest
}

// Truncate cuts text to at most max bytes, between graphemes, with an ellipsis in place of what is cut off when there
// is room for one. Formatting codes are taken for text.
func Truncate(text string, max int) string {
	if len(text) <= max {
		return text
	}
	mark := "…"
	if max < 4*len(mark) {
		mark = ""
	}
	end, rest := 0, text
	for rest != "" {
		var first string
		first, rest = firstGrapheme(rest)
		if end+len(first)+len(mark) > max {
			break
		}
		end += len(first)
	}
	if end == 0 && max > 0 {
		// A single grapheme over the limit: whole code points of it.
		return cutRunes(text, max)
	}
	return text[:end] + mark
}

// cutRunes is the longest start of text, in whole code points, of at most max bytes.
func cutRunes(text string, max int) string {
	end := 0
	for end < len(text) {
		_, n := utf8.DecodeRuneInString(text[end:])
		if end+n > max {
			break
		}
		end += n
	}
	return text[:end]
}

// Split cuts IRC text into lines of at most max bytes each. Every line break ends a line; lines that show nothing are
// left out. A line that is too long is cut at a space where there is one in its second half, otherwise between
// graphemes; a grapheme is cut only when it alone is longer than a line. Formatting that is on at a cut is switched on
// again after it: on IRC it ends with the line.
//
// The limit must leave room for the codes: below 48 bytes formatting is given up, and 4 bytes, one code point, is the
// least that is taken.
func Split(text string, max int) []string {
	if max < 4 {
		max = 4
	}
	text = Clean(text)
	if max < 48 {
		text = Strip(text)
	}
	var parts []string
	for line := range strings.SplitSeq(text, "\n") {
		parts = splitLine(parts, line, max)
	}
	return parts
}

// splitLine appends the pieces of one line.
func splitLine(parts []string, line string, max int) []string {
	now := plain // the style at the start of the piece
	for line != "" {
		open := now.opening(line)
		if len(open)+len(line) <= max {
			return appendVisible(parts, open+line)
		}
		piece, next := cutPiece(line, max-len(open))
		parts = appendVisible(parts, open+strings.TrimRight(piece, " "))
		for rest := piece; rest != ""; {
			n := now.take(rest)
			if n == 0 {
				n = 1
			}
			rest = rest[n:]
		}
		line = next
	}
	return parts
}

func appendVisible(parts []string, part string) []string {
	if strings.TrimSpace(Strip(part)) == "" {
		return parts
	}
	return append(parts, part)
}

// cutPiece takes the start of line that fits into max bytes, and returns the rest without the space it was cut at.
func cutPiece(line string, max int) (piece, rest string) {
	end, space := 0, -1
	for end < len(line) {
		n := unitLen(line[end:])
		if end+n > max {
			break
		}
		if line[end] == ' ' {
			space = end
		}
		end += n
	}
	switch {
	case end == 0:
		end = len(cutRunes(line, max))
	case line[end] == ' ':
		return line[:end], line[end+1:]
	case space > max/2:
		return line[:space], line[space+1:]
	}
	return line[:end], line[end:]
}

// unitLen is the length of what must not be cut at the start of text: a formatting code with its parameters, or a
// grapheme. A grapheme ends before a control character (UAX 29, GB5), so codes never hide inside one.
func unitLen(text string) int {
	var s style
	if n := s.take(text); n > 0 {
		return n
	}
	first, _ := firstGrapheme(text)
	return len(first)
}
