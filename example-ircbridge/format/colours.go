package format

import (
	"fmt"
	"strconv"
	"strings"
)

// palette are the colours of \x03: the first sixteen as most clients show them, 16 to 98 as agreed on
// (https://modern.ircdocs.horse/formatting, "Colors 16-98"). 99 is no colour.
var palette = [...]colour{
	0xffffff, 0x000000, 0x00007f, 0x009300, 0xff0000, 0x7f0000, 0x9c009c, 0xfc7f00,
	0xffff00, 0x00fc00, 0x009393, 0x00ffff, 0x0000fc, 0xff00ff, 0x7f7f7f, 0xd2d2d2,
	0x470000, 0x472100, 0x474700, 0x324700, 0x004700, 0x00472c, 0x004747, 0x002747, 0x000047, 0x2e0047, 0x470047, 0x47002a,
	0x740000, 0x743a00, 0x747400, 0x517400, 0x007400, 0x007449, 0x007474, 0x004074, 0x000074, 0x4b0074, 0x740074, 0x740045,
	0xb50000, 0xb56300, 0xb5b500, 0x7db500, 0x00b500, 0x00b571, 0x00b5b5, 0x0063b5, 0x0000b5, 0x7500b5, 0xb500b5, 0xb5006b,
	0xff0000, 0xff8c00, 0xffff00, 0xb2ff00, 0x00ff00, 0x00ffa0, 0x00ffff, 0x008cff, 0x0000ff, 0xa500ff, 0xff00ff, 0xff0098,
	0xff5959, 0xffb459, 0xffff71, 0xcfff60, 0x6fff6f, 0x65ffc9, 0x6dffff, 0x59b4ff, 0x5959ff, 0xc459ff, 0xff66ff, 0xff59bc,
	0xff9c9c, 0xffd39c, 0xffff9c, 0xe2ff9c, 0x9cff9c, 0x9cffdb, 0x9cffff, 0x9cd3ff, 0x9c9cff, 0xdc9cff, 0xff9cff, 0xff94d3,
	0x000000, 0x131313, 0x282828, 0x363636, 0x4d4d4d, 0x656565, 0x818181, 0x9f9f9f, 0xbcbcbc, 0xe2e2e2, 0xffffff,
}

// named are the sixteen colour names of HTML 4, for <font color>.
var named = map[string]colour{
	"black": 0x000000, "silver": 0xc0c0c0, "gray": 0x808080, "grey": 0x808080, "white": 0xffffff, "maroon": 0x800000,
	"red": 0xff0000, "purple": 0x800080, "fuchsia": 0xff00ff, "magenta": 0xff00ff, "green": 0x008000, "lime": 0x00ff00,
	"olive": 0x808000, "yellow": 0xffff00, "navy": 0x000080, "blue": 0x0000ff, "teal": 0x008080, "aqua": 0x00ffff,
	"cyan": 0x00ffff, "orange": 0xffa500,
}

func parseHex(text string) (colour, bool) {
	if len(text) != 6 || strings.ContainsAny(text, "+-_") {
		return noColour, false
	}
	value, err := strconv.ParseUint(text, 16, 32)
	return colour(value), err == nil
}

// parseHTML reads "#rrggbb" or a name; anything else is no colour.
func parseHTML(text string) colour {
	text = strings.ToLower(strings.TrimSpace(text))
	if c, ok := named[text]; ok {
		return c
	}
	if hex, ok := strings.CutPrefix(text, "#"); ok {
		if c, ok := parseHex(hex); ok {
			return c
		}
	}
	return noColour
}

func (c colour) html() string { return fmt.Sprintf("#%06x", int32(c)) }

// nearest is the palette's number of the colour most like c. The first of several wins, so that common colours get the
// numbers that every client knows.
func (c colour) nearest() int {
	best, least := 0, int32(1<<30)
	for i, p := range palette {
		r, g, b := int32(c>>16)-int32(p>>16), int32(c>>8&0xff)-int32(p>>8&0xff), int32(c&0xff)-int32(p&0xff)
		// The eye weighs green most and blue least.
		if d := 3*r*r + 6*g*g + b*b; d < least {
			best, least = i, d
		}
	}
	return best
}

// writeColours writes the code that sets the colours before the text that follows. Two digits always, so that a digit in
// that text is not taken for part of the code. \x04 is read but never written: many clients show its digits as text.
func writeColours(b *strings.Builder, fg, bg colour, following string) {
	if fg == noColour && bg == noColour {
		return
	}
	f := 99
	if fg != noColour {
		f = fg.nearest()
	}
	fmt.Fprintf(b, "\x03%02d", f)
	switch {
	case bg != noColour:
		fmt.Fprintf(b, ",%02d", bg.nearest())
	case strings.HasPrefix(following, ","):
		// Two toggles of bold change nothing and keep the comma out of the code.
		b.WriteString("\x02\x02")
	}
}
