package format

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func checkText(t *testing.T, text string, lines bool) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Fatalf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if isControl(r) && !isCode(r) && !(lines && r == '\n') {
			t.Fatalf("control %U in %q", r, text)
		}
	}
}

func FuzzFromMatrix(f *testing.F) {
	f.Add("> <@a:x> q\n\nmine", "<mx-reply><blockquote>q</blockquote></mx-reply><b>mine</b>", true)
	f.Add("x", `<ol start="9"><li><p>a</p></li></ol><pre>b`+"\n"+`c</pre><span data-mx-spoiler="r">s</span>`, false)
	f.Add("x", `<font color=red>,5</font><a href="http://x/ y">z</a>`, false)
	f.Add("\x01ACTION\r\nQUIT\x00", "", false)
	f.Fuzz(func(t *testing.T, body, html string, reply bool) {
		checkText(t, FromMatrix(body, html, reply), true)
		if strings.Contains(strings.ToLower(stripHTML(html)), "<mx-reply>") {
			t.Fatal("a fallback is left")
		}
	})
}

func FuzzToMatrix(f *testing.F) {
	f.Add("\x0304,08red\x03 \x1estrike\x1e \x02b\x1di\x0f \x04ff8800x")
	f.Add("\x03,\x041234\x16\xff")
	f.Fuzz(func(t *testing.T, text string) {
		body, html := ToMatrix(text)
		for _, r := range body {
			if isControl(r) && r != '\n' {
				t.Fatalf("control %U in %q", r, body)
			}
		}
		checkText(t, html, true)
		if strings.ContainsFunc(html, isCode) || !utf8.ValidString(body) {
			t.Fatalf("%q", html)
		}
		if body != Strip(Clean(text)) {
			t.Fatalf("body %q, bare %q", body, Strip(Clean(text)))
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add("\x0304,08"+strings.Repeat("hello wörld ", 20), 50)
	f.Add("👨‍👩‍👧‍👦👨‍👩‍👧‍👦\n\n\x02x", 7)
	f.Add("\x0304"+strings.Repeat("a", 46)+",5", 50)
	f.Fuzz(func(t *testing.T, text string, max int) {
		if max < 4 || max > 1000 {
			return
		}
		parts := Split(text, max)
		var together strings.Builder
		for _, part := range parts {
			if len(part) > max {
				t.Fatalf("%d bytes over %d: %q", len(part), max, part)
			}
			checkText(t, part, false)
			together.WriteString(Strip(part))
		}
		bare := func(s string) string { return strings.Join(strings.Fields(s), "") }
		var want strings.Builder
		for line := range strings.SplitSeq(Clean(text), "\n") {
			want.WriteString(Strip(line))
		}
		if bare(together.String()) != bare(want.String()) {
			t.Fatalf("text changed:\n%q\n%q", bare(want.String()), bare(together.String()))
		}
	})
}
