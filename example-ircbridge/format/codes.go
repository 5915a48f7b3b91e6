package format

import "strings"

// The formatting codes of IRC. Each of bold to mono is a toggle.
const (
	codeBold      = '\x02'
	codeColour    = '\x03' // one or two digits, and after a comma the same for the background
	codeHex       = '\x04' // six hexadecimal digits, and after a comma the same for the background
	codeReset     = '\x0f'
	codeMono      = '\x11'
	codeReverse   = '\x16'
	codeItalic    = '\x1d'
	codeStrike    = '\x1e'
	codeUnderline = '\x1f'
)

// colour is an RGB value, or noColour.
type colour int32

const noColour colour = -1

// style is what a stretch of text looks like.
type style struct {
	bold, italic, underline, strike, mono, reverse bool
	fg, bg                                         colour
}

var plain = style{fg: noColour, bg: noColour}

// toggles are the codes that lead from one style to the other, colours aside.
func (s style) toggles(to style, b *strings.Builder) {
	for _, t := range [...]struct {
		from, to bool
		code     byte
	}{
		{s.bold, to.bold, codeBold},
		{s.italic, to.italic, codeItalic},
		{s.underline, to.underline, codeUnderline},
		{s.strike, to.strike, codeStrike},
		{s.mono, to.mono, codeMono},
		{s.reverse, to.reverse, codeReverse},
	} {
		if t.from != t.to {
			b.WriteByte(t.code)
		}
	}
}

// opening are the codes that bring plain text to the style, before the text that follows.
func (s style) opening(following string) string {
	var b strings.Builder
	plain.toggles(s, &b)
	writeColours(&b, s.fg, s.bg, following)
	return b.String()
}

// take reads the code at the start of text, changes the style by it, and returns its length in bytes; 0 means that text
// does not start with a code.
func (s *style) take(text string) int {
	if text == "" {
		return 0
	}
	switch text[0] {
	case codeBold:
		s.bold = !s.bold
	case codeItalic:
		s.italic = !s.italic
	case codeUnderline:
		s.underline = !s.underline
	case codeStrike:
		s.strike = !s.strike
	case codeMono:
		s.mono = !s.mono
	case codeReverse:
		s.reverse = !s.reverse
	case codeReset:
		*s = plain
	case codeColour:
		return s.takeColour(text, takePalette)
	case codeHex:
		return s.takeColour(text, takeHex)
	default:
		return 0
	}
	return 1
}

func (s *style) takeColour(text string, value func(string) (colour, int)) int {
	fg, n := value(text[1:])
	if n == 0 {
		s.fg, s.bg = noColour, noColour
		return 1
	}
	s.fg = fg
	n++
	if n < len(text) && text[n] == ',' {
		if bg, m := value(text[n+1:]); m > 0 {
			s.bg = bg
			n += 1 + m
		}
	}
	return n
}

func takePalette(text string) (colour, int) {
	n, value := 0, 0
	for n < 2 && n < len(text) && '0' <= text[n] && text[n] <= '9' {
		value = value*10 + int(text[n]-'0')
		n++
	}
	if n == 0 || value >= len(palette) {
		return noColour, n
	}
	return palette[value], n
}

func takeHex(text string) (colour, int) {
	if len(text) < 6 {
		return noColour, 0
	}
	c, ok := parseHex(text[:6])
	if !ok {
		return noColour, 0
	}
	return c, 6
}

// Strip removes the formatting codes from IRC text.
func Strip(text string) string {
	if strings.IndexFunc(text, isCode) < 0 {
		return text
	}
	var b strings.Builder
	var s style
	for text != "" {
		if n := s.take(text); n > 0 {
			text = text[n:]
			continue
		}
		next := strings.IndexFunc(text[1:], isCode) + 1
		if next == 0 {
			next = len(text)
		}
		b.WriteString(text[:next])
		text = text[next:]
	}
	return b.String()
}

func isCode(r rune) bool {
	switch r {
	case codeBold, codeColour, codeHex, codeReset, codeMono, codeReverse, codeItalic, codeStrike, codeUnderline:
		return true
	}
	return false
}
