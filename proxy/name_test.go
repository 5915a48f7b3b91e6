package proxy

import (
	"mime"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestProxy13_CleanName(t *testing.T) {
	for given, want := range map[string]string{
		"photo.jpg":                       "photo.jpg",
		"photo\u202egpj.exe":              "photogpj.exe",
		"a\u2066b\u2069c\u200f.txt":       "abc.txt",
		"../../etc/passwd":                "etcpasswd",
		`C:\Windows\system.ini`:           "CWindowssystem.ini",
		"a\r\nSet-Cookie: x=1":            "a Set-Cookie x=1",
		"a\x00b\x1b[31m.txt":              "ab[31m.txt",
		".bashrc":                         "bashrc",
		"name. . ":                        "name",
		"  two   words.png ":              "two words.png",
		"\xff\xfe.txt":                    "txt",
		"Übersicht – 猫.png":               "Übersicht – 猫.png",
		"":                                "",
		"...":                             "",
		`quo"te<|>*?.txt`:                 "quote.txt",
		strings.Repeat("x", 500) + ".jpg": strings.Repeat("x", 116) + ".jpg",
	} {
		if got := cleanName(given); got != want {
			t.Errorf("%q became %q, want %q", given, got, want)
		}
	}
}

func TestProxy13_DisplayName_LongNames_AreCutAndKeepTheirExtension(t *testing.T) {
	for _, name := range []string{strings.Repeat("猫", 60) + ".png", strings.Repeat("a", 110) + ".png", "short.png"} {
		got := displayName(name)
		if len(url.PathEscape(got)) > maxDisplay || !strings.HasSuffix(got, ".png") || !utf8.ValidString(got) {
			t.Errorf("%q", got)
		}
	}
}

func TestProxy13_ContentDisposition(t *testing.T) {
	for name, want := range map[string]string{
		"":            `inline`,
		"photo.jpg":   `inline; filename="photo.jpg"`,
		"a b.jpg":     `inline; filename="a b.jpg"`,
		"Ünal.jpg":    `inline; filename="_nal.jpg"; filename*=UTF-8''%C3%9Cnal.jpg`,
		"100% x.jpg":  `inline; filename="100_ x.jpg"; filename*=UTF-8''100%25%20x.jpg`,
		"it's; a.jpg": `inline; filename="it's; a.jpg"`,
	} {
		if got := contentDisposition(inline, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func FuzzFileName(f *testing.F) {
	for _, s := range []string{"photo.jpg", "a\u202eb", "../x", "Ü%\"\\;.png", strings.Repeat("猫", 200) + ".x", "\xff", "a.\u0301b", "\u00a0."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, given string) {
		clean := cleanName(given)
		if len(clean) > maxName || !utf8.ValidString(clean) {
			t.Fatalf("%d bytes, valid %v: %q", len(clean), utf8.ValidString(clean), clean)
		}
		for _, r := range clean {
			if strings.ContainsRune(`/\`, r) || !unicode.IsGraphic(r) {
				t.Errorf("%U is in %q", r, clean)
			}
		}
		if strings.HasPrefix(clean, ".") {
			t.Errorf("hidden: %q", clean)
		}
		if again := cleanName(clean); again != clean {
			t.Errorf("cleaned twice: %q, then %q", clean, again)
		}
		header := contentDisposition(attachment, clean)
		for i := range len(header) {
			if header[i] < 0x20 || header[i] > 0x7e {
				t.Fatalf("byte %#x in %q", header[i], header)
			}
		}
		kind, params, err := mime.ParseMediaType(header)
		if err != nil || kind != attachment {
			t.Fatalf("%q: %v", header, err)
		}
		if clean != "" && params["filename"] != clean {
			t.Errorf("%q is read as %q", header, params["filename"])
		}
		shown := displayName(clean)
		if len(url.PathEscape(shown)) > maxDisplay || strings.Contains(shown, "/") {
			t.Errorf("shown as %q", shown)
		}
	})
}
