package format

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text fit for an IRC line, line breaks aside: valid UTF-8 with no control characters but formatting codes
// and LF. CRLF, lone CR and the line breaks of Unicode become LF, a tab becomes a space, and every other control character
// goes.
func Clean(text string) string { return clean(text, isCode) }

// CleanPlain is Clean without formatting codes: what a Matrix body may become.
func CleanPlain(text string) string { return clean(text, func(rune) bool { return false }) }

func clean(text string, keep func(rune) bool) string {
	if strings.IndexFunc(text, func(r rune) bool { return isControl(r) || isBreak(r) || r == utf8.RuneError }) < 0 {
		return text
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case isBreak(r):
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

// isBreak knows the mandatory line breaks of UAX #14: what some clients show as one, nobody may put a forged line behind.
func isBreak(r rune) bool {
	switch r {
	case '\n', '\v', '\f', '\r', '\u0085', '\u2028', '\u2029':
		return true
	}
	return false
}

// unseen are the characters that show nothing, or reorder what is shown: they make one name look like another. Those of
// Unicode's Default_Ignorable_Code_Point are in three of its categories.
var unseen = []*unicode.RangeTable{unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector}

// Name makes a display name fit for the start of an IRC line, at most max bytes: one line without control characters,
// formatting, and characters that show nothing or reorder text (emoji that they joined fall apart); what looks like an
// angle bracket is replaced, because relays put names between them. The result may be empty.
func Name(name string, max int) string { return Label(brackets.Replace(name), max) }

var brackets = strings.NewReplacer("<", "‹", "＜", "‹", "﹤", "‹", ">", "›", "＞", "›", "﹥", "›")

// Label is Name for what is shown by itself, such as a nick or a file's name: brackets are kept.
func Label(name string, max int) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\u2800': // the latter is Braille without a dot
			return ' '
		case unicode.In(r, unseen...):
			return -1
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
