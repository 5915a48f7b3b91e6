package format

import "strings"

// maxQuotes is how deep quotations are shown; what is deeper looks as deep as that.
const maxQuotes = 8

// writer puts together IRC text: it writes codes only where text follows, so that none dangle, and starts every line
// plain, because IRC does.
type writer struct {
	out      strings.Builder
	now      style // at the end of out
	fresh    bool  // nothing is on the current line
	glue     bool  // the next block begins on the current line: the first one of a list item
	space    bool  // white space is owed before the next word,
	spaced   style // in this style
	prefixes []string
	hidden   int // spoilers around
}

func newWriter() *writer { return &writer{now: plain, fresh: true} }

// finish returns the text without the empty lines around it.
func (w *writer) finish() string { return strings.Trim(w.out.String(), "\n ") }

// block runs fn between line breaks.
func (w *writer) block(fn func()) {
	if w.glue {
		w.glue = false
	} else {
		w.endBlock()
	}
	fn()
	w.endBlock()
}

func (w *writer) endBlock() {
	w.glue = false
	if !w.fresh {
		w.breakLine()
	}
	w.space = false
}

func (w *writer) breakLine() {
	w.out.WriteByte('\n')
	w.now, w.fresh, w.space = plain, true, false
}

// flow writes text in which white space is only a separator, as HTML has it.
func (w *writer) flow(text string, s style) {
	if text == "" {
		return
	}
	words := strings.FieldsFunc(text, isHTMLSpace)
	if len(words) == 0 {
		w.owe(s)
		return
	}
	if isHTMLSpace(rune(text[0])) {
		w.owe(s)
	}
	w.separate()
	w.run(strings.Join(words, " "), s)
	if isHTMLSpace(rune(text[len(text)-1])) {
		w.owe(s)
	}
}

func isHTMLSpace(r rune) bool { return r == ' ' || r == '\n' }

// separate writes the space that is owed before a word, in the style that the space had.
func (w *writer) separate() {
	if w.space && !w.fresh && !w.endsInSpace() {
		w.run(" ", w.spaced)
	}
	w.space = false
}

// owe asks for a space before the next word.
func (w *writer) owe(s style) {
	if !w.space {
		w.space, w.spaced = true, s
	}
}

func (w *writer) endsInSpace() bool { return strings.HasSuffix(w.out.String(), " ") }

// lines writes text as it is, line breaks included.
func (w *writer) lines(text string, s style) {
	if strings.HasPrefix(text, " ") {
		w.space = false
	}
	w.separate()
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			w.breakLine()
		}
		w.run(line, s)
	}
}

// run writes text within a line.
func (w *writer) run(text string, s style) {
	if text == "" {
		return
	}
	if w.fresh {
		for _, p := range w.prefixes[:min(len(w.prefixes), maxQuotes)] {
			w.out.WriteString(p)
		}
		w.fresh = false
	}
	w.turn(s, text)
	w.out.WriteString(text)
}

// turn writes the codes from the present style to s, before the text that follows.
func (w *writer) turn(s style, following string) {
	if s.fg == w.now.fg && s.bg == w.now.bg {
		w.now.toggles(s, &w.out)
		w.now = s
		return
	}
	if (w.now.fg != noColour && s.fg == noColour) || (w.now.bg != noColour && s.bg == noColour) {
		// A bare \x03 would swallow digits of the text: reset everything, and begin again.
		w.out.WriteByte(codeReset)
		w.now = plain
	}
	w.now.toggles(s, &w.out)
	writeColours(&w.out, s.fg, s.bg, following)
	w.now = s
}
