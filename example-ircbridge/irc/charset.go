package irc

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// charsets are the encodings of single bytes that people on IRC had before UTF-8.
var charsets = map[string]*charmap.Charmap{
	"iso-8859-1": charmap.ISO8859_1, "iso-8859-2": charmap.ISO8859_2, "iso-8859-5": charmap.ISO8859_5,
	"iso-8859-7": charmap.ISO8859_7, "iso-8859-9": charmap.ISO8859_9, "iso-8859-15": charmap.ISO8859_15,
	"koi8-r": charmap.KOI8R, "koi8-u": charmap.KOI8U,
	"windows-1250": charmap.Windows1250, "windows-1251": charmap.Windows1251, "windows-1252": charmap.Windows1252,
	"windows-1253": charmap.Windows1253, "windows-1254": charmap.Windows1254, "windows-1255": charmap.Windows1255,
	"windows-1256": charmap.Windows1256, "windows-1257": charmap.Windows1257, "windows-1258": charmap.Windows1258,
}

func charset(name string) *charmap.Charmap {
	name = strings.ToLower(name)
	switch name {
	case "latin1", "latin-1":
		name = "iso-8859-1"
	case "cp1251":
		name = "windows-1251"
	case "cp1252":
		name = "windows-1252"
	}
	return charsets[name]
}

func charsetNames() []string { return slices.Sorted(maps.Keys(charsets)) }

// decode makes a line valid UTF-8: as it is, from the fallback encoding, or with replacement characters.
func decode(line []byte, fallback *charmap.Charmap) string {
	if utf8.Valid(line) {
		return string(line)
	}
	if fallback != nil {
		var b strings.Builder
		for _, c := range line {
			b.WriteRune(fallback.DecodeByte(c))
		}
		return b.String()
	}
	return strings.ToValidUTF8(string(line), "\uFFFD")
}
