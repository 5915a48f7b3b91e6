package format

import (
	"strings"
	"unicode/utf8"
)

// Clean makes text fit for an IRC line, line breaks aside: valid UTF-8 with no control characters but formatting codes
// and LF. CRLF and lone CR become LF, a tab becomes a space, and every other control character goes.
func Clean(text string) string { return clean(text, isCode) }

// CleanPlain is Clean without formatting codes: what a Matrix body may become.
func CleanPlain(text string) string { return clean(text, func(rune) bool { return false }) }

func clean(text string, keep func(rune) bool) string {
	if strings.IndexFunc(text, func(r rune) bool { return isControl(r) || r == utf8.RuneError }) < 0 {
		return text
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\u0085', r == '\v', r == '\f':
			return '\n'
		case r == '\t':
			return ' '
		case isControl(r) && !keep(r):
			return -1
		}
		return r
	}, text)
}

func isControl(r rune) bool { return r < 0x20 || 0x7f <= r && r <= 0x9f }

// invisible reports whether r is one of the characters that reorder or hide text: they make one name look like another.
func invisible(r rune) bool {
	switch {
	case r == '\u00ad', r == '\u034f', r == '\u061c', r == '\u115f', r == '\u1160', r == '\u17b4', r == '\u17b5', r == '\u180e',
		'\u200b' <= r && r <= '\u200f', '\u2028' <= r && r <= '\u202e', '\u2060' <= r && r <= '\u206f',
		r == '\u3164', r == '\ufeff', r == '\uffa0', '\ufff9' <= r && r <= '\ufffb', 0xe0000 <= r && r <= 0xe007f:
		return true
	}
	return false
}

// Name makes a display name fit for the start of an IRC line, at most max bytes: one line without control characters,
// formatting, invisible or reordering characters; angle brackets are replaced, because relays put names between them.
// The result may be empty.
func Name(name string, max int) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case invisible(r) && r != '\u200d': // emoji are joined by U+200D
			return -1
		case r == '<':
			return '‹'
		case r == '>':
			return '›'
		case r == '\n':
			return ' '
		}
		return r
	}, CleanPlain(name))
	name = strings.Trim(strings.Join(strings.Fields(name), " "), "\u200d")
	return Truncate(name, max)
}

// FileName is Name for the name of a file, whose brackets are kept.
func FileName(name string, max int) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case invisible(r) && r != '\u200d':
			return -1
		case r == '\n':
			return ' '
		}
		return r
	}, CleanPlain(name))
	return Truncate(strings.Join(strings.Fields(name), " "), max)
}

// NoPing puts an invisible character behind the first grapheme of a name, so that IRC clients whose user has the same
// nick do not take it for a mention.
func NoPing(name string) string {
	first, rest := firstGrapheme(name)
	if rest == "" {
		return name
	}
	return first + "\u200b" + rest
}
