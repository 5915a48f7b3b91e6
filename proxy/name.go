package proxy

import (
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName    = 120 // bytes of a file name in an answer's header
	maxDisplay = 60  // bytes of the name at the end of a link, as escaped
)

// cleanName makes a sender's text a name that is safe as one path component, on any system, and that reads as it is written.
// Control and format characters go, the bidirectional ones among them ("photo\u202Egpj.exe" would read as "photoexe.jpg"), and so does
// everything that some system takes for a path. The result may be empty.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return -1
		case strings.ContainsRune(`/\:*?"<>|`, r):
			return -1
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsGraphic(r): // Cc, Cf, Cs, Co, Cn, Zl, Zp
			return -1
		}
		return r
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	name = strings.Trim(name, ". ") // a leading dot hides the file, a trailing one is dropped by Windows
	return strings.Trim(shorten(name, maxName, func(s string) int { return len(s) }), ". ")
}

// displayName is the name at the end of a link: short, with its extension.
func displayName(clean string) string {
	clean = strings.ReplaceAll(clean, " ", "_")
	return shorten(clean, maxDisplay, func(s string) int { return len(url.PathEscape(s)) })
}

// shorten cuts whole characters from the end of the name's stem until size(name) is within limit, and keeps a short extension.
func shorten(name string, limit int, size func(string) int) string {
	if size(name) <= limit {
		return name
	}
	ext := path.Ext(name)
	if size(ext) > limit/4 {
		ext = ""
	}
	stem := strings.TrimSuffix(name, ext)
	// Cut to a multiple of the limit first: no character takes less than a byte, and a long name must not cost quadratic time.
	if len(stem) > limit {
		stem = strings.ToValidUTF8(stem[:limit], "")
	}
	for stem != "" && size(stem+ext) > limit {
		_, n := utf8.DecodeLastRuneInString(stem)
		stem = stem[:len(stem)-n]
	}
	return stem + ext
}

// contentDisposition is the header of RFC 6266: a fallback in ASCII, and the name itself in RFC 8187 when the two differ.
func contentDisposition(disposition, name string) string {
	if name == "" {
		return disposition
	}
	var fallback, extended strings.Builder
	differs := false
	for _, r := range name {
		// '%' would be decoded by some browsers in the plain form, '"' and '\' would need escapes that others do not undo.
		if r < 0x20 || r > 0x7e || r == '%' || r == '"' || r == '\\' {
			fallback.WriteByte('_')
			differs = true
		} else {
			fallback.WriteRune(r)
		}
	}
	for i := range len(name) {
		if c := name[i]; isAlphanumeric(c) || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 { // attr-char
			extended.WriteByte(c)
		} else {
			const hex = "0123456789ABCDEF"
			extended.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	out := disposition + `; filename="` + fallback.String() + `"`
	if differs {
		out += "; filename*=UTF-8''" + extended.String()
	}
	return out
}
