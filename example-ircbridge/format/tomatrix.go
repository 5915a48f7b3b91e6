package format

import (
	"html"
	"strings"
)

// ToMatrix turns one line of IRC text into a Matrix body and, when it has formatting, into HTML for
// org.matrix.custom.html; otherwise the HTML is empty. URLs stay text. Text in its own background colour, which is how
// IRC hides things, becomes a spoiler.
func ToMatrix(text string) (body, formatted string) {
	text = Clean(text)
	var bare, rich strings.Builder
	now, styled := plain, false
	for text != "" {
		if n := now.take(text); n > 0 {
			text = text[n:]
			continue
		}
		end := strings.IndexFunc(text[1:], isCode) + 1
		if end == 0 {
			end = len(text)
		}
		run := text[:end]
		text = text[end:]
		bare.WriteString(run)
		open, close := now.tags()
		styled = styled || open != ""
		rich.WriteString(open)
		rich.WriteString(strings.ReplaceAll(html.EscapeString(run), "\n", "<br>"))
		rich.WriteString(close)
	}
	if !styled {
		return bare.String(), ""
	}
	return bare.String(), rich.String()
}

// tags are the HTML tags around a stretch of the style: those that Matrix clients are told to allow (client-server API,
// and MSC4077: neither <font> nor <strike>).
func (s style) tags() (open, close string) {
	wrap := func(name, attributes string) {
		open += "<" + name + attributes + ">"
		close = "</" + name + ">" + close
	}
	fg, bg := s.fg, s.bg
	if s.reverse {
		fg, bg = bg, fg
	}
	switch {
	case fg != noColour && fg == bg:
		wrap("span", " data-mx-spoiler")
	case fg != noColour || bg != noColour:
		attributes := ""
		if fg != noColour {
			attributes += ` data-mx-color="` + fg.html() + `"`
		}
		if bg != noColour {
			attributes += ` data-mx-bg-color="` + bg.html() + `"`
		}
		wrap("span", attributes)
	}
	for _, t := range [...]struct {
		on   bool
		name string
	}{{s.bold, "strong"}, {s.italic, "em"}, {s.underline, "u"}, {s.strike, "s"}, {s.mono, "code"}} {
		if t.on {
			wrap(t.name, "")
		}
	}
	return open, close
}
