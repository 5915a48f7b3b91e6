package format

import (
	"strings"
	"testing"
)

func TestFromMatrix(t *testing.T) {
	for _, test := range []struct{ name, body, html, want string }{
		{"a plain body stays", "hello <b>world</b>", "", "hello <b>world</b>"},
		{"bold", "x", "hello <b>world</b> and <strong>more</strong>", "hello \x02world\x02 and \x02more"},
		{"italic, underline, strike, mono", "x", "<i>a</i><em>b</em> <u>c</u> <del>d</del><s>e</s> <code>f</code>.",
			"\x1dab\x1d \x1fc\x1f \x1ede\x1e \x11f\x11."},
		{"styles nest", "x", "<b>a <i>b</i></b> c", "\x02a \x1db\x02\x1d c"},
		{"entities", "x", "1 &lt; 2 &amp;amp; 3", "1 < 2 &amp; 3"},
		{"white space of HTML is one space", "x", "a\n   b <br/> c", "a b\nc"},
		{"paragraphs are lines", "x", "<p>one</p>\n<p>two</p>", "one\ntwo"},
		{"a heading is bold", "x", "<h1>Title</h1><p>text</p>", "\x02Title\ntext"},
		{"a list", "x", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>", "• a\n• b\n  • c"},
		{"a list of paragraphs", "x", "<ul><li><p>a</p></li><li><p>b</p></li></ul>", "• a\n• b"},
		{"a numbered list", "x", `<ol start="4"><li>a</li><li>b</li></ol>after`, "4. a\n5. b\nafter"},
		{"a quotation", "x", "<blockquote><p>a</p><p>b</p></blockquote>answer", "> a\n> b\nanswer"},
		{"a quotation in a quotation", "x", "<blockquote><blockquote>a</blockquote>b</blockquote>", "> > a\n> b"},
		{"a code block keeps its lines", "x", "<pre><code>if x {\n  y\n}\n</code></pre>done", "\x11if x {\n\x11  y\n\x11}\ndone"},
		{"a link", "x", `see <a href="https://example.org/a?b=c&amp;d">this page</a>.`, "see this page (https://example.org/a?b=c&d)."},
		{"a link whose text says it", "x", `<a href="https://example.org/">example.org</a>`, "https://example.org/"},
		{"a link without a harmless scheme is text", "x", `<a href="javascript:alert(1)">click</a>`, "click"},
		{"an anchor with a name is text", "x", `<a name="foo">bar</a>`, "bar"},
		{"a mention is the name", "x", `<a href="https://matrix.to/#/@alice:example.org">Alice</a>: hi`, "Alice: hi"},
		{"a mention with a matrix URI", "x", `<a href="matrix:u/alice:example.org">Alice</a>: hi`, "Alice: hi"},
		{"another host's matrix.to is a link", "x", `<a href="https://evilmatrix.to/#/@alice:example.org">Alice</a>`,
			"Alice (https://evilmatrix.to/#/@alice:example.org)"},
		{"a link to an event is a link", "x", `<a href="https://matrix.to/#/!r:x/$e?via=x">there</a>`, "there (https://matrix.to/#/!r:x/$e?via=x)"},
		{"a spoiler", "x", `it is <span data-mx-spoiler="the end">him</span>!`, "it is (spoiler: the end) \x0301,01him\x0f!"},
		{"a spoiler without a reason", "x", `<span data-mx-spoiler>12</span>3`, "(spoiler) \x0301,01" + "12\x0f3"},
		{"colours, then a digit", "x", `<font color="#ff0000">red</font>5`, "\x0304red\x0f5"},
		{"foreground and background", "x", `<span data-mx-color="#ff0000" data-mx-bg-color="#ffff00">x</span>`, "\x0304,08x"},
		{"a colour, then a comma", "x", `<font color="red">,5</font>`, "\x0304\x02\x02,5"},
		{"a colour that is none", "x", `<font color="reddish">x</font>`, "x"},
		{"text cannot be hidden but by a spoiler", "x", `<span data-mx-color="#ffffff" data-mx-bg-color="#ffffff">x</span>`, "\x0300x"},
		{"a formula", "x", `<span data-mx-maths="\sin(x)=\frac{a}{b}">sin(x)=<sup>a</sup></span>`, `$\sin(x)=\frac{a}{b}$`},
		{"a displayed formula", "x", `<div data-mx-maths="x^2">x2</div>`, `$$x^2$$`},
		{"a formula too long", "x", `<span data-mx-maths="` + strings.Repeat("x", 100<<10) + `">fallback</span>`, "fallback"},
		{"a custom emoji", "x", `<img data-mx-emoticon src="mxc://a/b" alt=":cat:" title="cat">`, ":cat:"},
		{"a table", "x", `<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>`, "a | b\n1 | 2"},
		{"scripts go", "x", `<script>alert(1)</script>ok`, "ok"},
		{"unknown elements are their text", "x", `<blink>ok</blink>`, "ok"},
		{"HTML that shows nothing gives the body", "body", `<mx-reply>quoted</mx-reply>`, "body"},
		{"HTML nested too deep gives the body", "body", strings.Repeat("<b>", 100_000) + "x", "body"},
		{"codes and other controls in a body go", "a\x02b\x00c\x01d\x07e\tf\u009bg", "", "abcde fg"},
		{"so are Unicode's", "a\u2028b\u2029c\u0085d\u000be", "", "a\nb\nc\nd\ne"},
		{"Unicode's line breaks in HTML", "x", "<pre>a&#x2028;<b>&lt;Bob&gt; b</b></pre>", "\x11a\n\x02\x11<Bob> b"},
		{"carriage returns are line breaks", "a\r\nb\rc", "", "a\nb\nc"},
		{"controls in HTML go", "x", "a&#2;b&#13;c\x01<i title='\x02'>d</i>", "ab c\x1dd"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := FromMatrix(test.body, test.html, false); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

// The six bodies of MSC2781.
func TestFromMatrix_ReplyFallback(t *testing.T) {
	const quote = `<mx-reply><blockquote><a href="https://matrix.to/#/!r:x/$e">In reply to</a> <a href="https://matrix.to/#/@a:x">@a:x</a><br>secret</blockquote></mx-reply>`
	for _, test := range []struct{ name, body, html, want string }{
		{"both", "> <@a:x> secret\n> more\n\nmine", quote + "mine", "mine"},
		{"body only", "> <@a:x> secret\n\nmine", "", "mine"},
		{"an emote's fallback", "> * <@a:x> secret\n\nmine", "", "mine"},
		{"unclosed", "> <@a:x> secret\n\nmine", strings.ReplaceAll(quote, "</mx-reply>", "") + "mine", "mine"},
		{"unclosed without a quotation shows the body", "> <@a:x> secret\n\nmine", "<mx-reply>secret mine", "mine"},
		{"a space before", "> <@a:x> secret\n\nmine", "  " + quote + "mine", "mine"},
		{"more than a quotation in it", "> <@a:x> secret\n\nmine", "<mx-reply><blockquote>secret</blockquote>more</mx-reply>mine", "mine"},
		{"in capitals", "> <@a:x> secret\n\nmine", strings.ReplaceAll(quote, "mx-reply", "MX-Reply") + "mine", "mine"},
		{"the sender's own quotation stays", "> <@a:x> secret\n\n> mine\n\nok", quote + "<blockquote>mine</blockquote>ok", "> mine\nok"},
		{"the sender's own quotation stays in a body", "> <@a:x> secret\n\n> mine\nok", "", "> mine\nok"},
		{"a quotation that is no fallback stays", "> a wise saying\n\nindeed", "", "> a wise saying\n\nindeed"},
		{"nothing but the fallback", "> <@a:x> secret", "", ""},
		{"a file with a quotation", "photo.jpg", quote + "photo.jpg", "photo.jpg"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := FromMatrix(test.body, test.html, true); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestFromMatrix_NoReply_KeepsWhatLooksLikeAFallback(t *testing.T) {
	if got := FromMatrix("> <@a:x> hi\n\nmine", "", false); got != "> <@a:x> hi\n\nmine" {
		t.Errorf("got %q", got)
	}
}

func TestToMatrix(t *testing.T) {
	for _, test := range []struct{ name, text, body, html string }{
		{"plain", "hello <b>", "hello <b>", ""},
		{"bold", "a \x02b\x02 c", "a b c", "a <strong>b</strong> c"},
		{"bold to the end", "a \x02b", "a b", "a <strong>b</strong>"},
		{"overlapping", "\x02a\x1db\x02c", "abc", "<strong>a</strong><strong><em>b</em></strong><em>c</em>"},
		{"all", "\x1fu\x1f\x1es\x1e\x11m\x11", "usm", "<u>u</u><s>s</s><code>m</code>"},
		{"colours", "\x0304,08red\x03 \x1estrike\x1e", "red strike",
			`<span data-mx-color="#ff0000" data-mx-bg-color="#ffff00">red</span> <s>strike</s>`},
		{"one digit", "\x034red\x03 5", "red 5", `<span data-mx-color="#ff0000">red</span> 5`},
		{"a comma that is text", "\x034,x", ",x", `<span data-mx-color="#ff0000">,x</span>`},
		{"hex", "\x04FF8800,000000x\x04y", "xy", `<span data-mx-color="#ff8800" data-mx-bg-color="#000000">x</span>y`},
		{"reset", "\x02\x1da\x0fb", "ab", "<strong><em>a</em></strong>b"},
		{"reverse swaps", "\x034\x16x", "x", `<span data-mx-bg-color="#ff0000">x</span>`},
		{"a spoiler", "\x0301,01him\x03!", "him!", "<span data-mx-spoiler>him</span>!"},
		{"99 is no colour", "\x0399x", "x", ""},
		{"HTML is escaped", "\x02<img src=x>\"'&", `<img src=x>"'&`, "<strong>&lt;img src=x&gt;&#34;&#39;&amp;</strong>"},
		{"other controls go", "a\x07b\x01c\td", "abc d", ""},
		{"a URL stays text", "see https://x/?a=1&b=2", "see https://x/?a=1&b=2", ""},
		{"not UTF-8", "a\xffb", "a\uFFFDb", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			body, html := ToMatrix(test.text)
			if body != test.body || html != test.html {
				t.Errorf("got  %q %q\nwant %q %q", body, html, test.body, test.html)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	const family = "👨‍👩‍👧‍👦"
	for _, test := range []struct {
		name, text string
		max        int
		want       []string
	}{
		{"what fits stays", "test", 100, []string{"test"}},
		{"lines", "a\n\nb\r\nc", 100, []string{"a", "b", "c"}},
		{"nothing", "\n \n\x02\x02", 100, nil},
		{"at spaces", "aaaa bbbb cccc", 10, []string{"aaaa bbbb", "cccc"}},
		{"a word too long", "aaaaaaaaaaaa", 5, []string{"aaaaa", "aaaaa", "aa"}},
		{"graphemes stay whole", "ab" + family + family, 28, []string{"ab" + family, family}},
		{"a grapheme too long", family, 10, []string{"👨‍", "👩‍", "👧‍", "👦"}},
		{"combining marks stay", "aaaae\u0301", 5, []string{"aaaa", "e\u0301"}},
		{"formatting goes on after a cut", "\x02" + strings.Repeat("a", 60), 50,
			[]string{"\x02" + strings.Repeat("a", 49), "\x02" + strings.Repeat("a", 11)}},
		{"formatting ends with the line", "\x02a\nb", 50, []string{"\x02a", "b"}},
		{"colours go on", "\x0304,08" + strings.Repeat("a", 60), 50,
			[]string{"\x0304,08" + strings.Repeat("a", 44), "\x0304,08" + strings.Repeat("a", 16)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Split(test.text, test.max)
			if strings.Join(got, "|") != strings.Join(test.want, "|") {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestName(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"Alice", "Alice"},
		{"a\r\nQUIT", "a QUIT"},
		{"a\x02\x0304b\x00", "a04b"},
		{"alice> hi <bob", "alice› hi ‹bob"},
		{"\u202eecila\u2066", "ecila"},
		{"  many   spaces ", "many spaces"},
		{"\u200b", ""},
		{"Bo\u200db\u200c\ufe0f\ufe00\u115f\u1160\u3164\uffa0\u00ad\u180b\U000e0062\U000e0100", "Bob"},
		{"\u2800Bob\u2800\u00a0", "Bob"},
		{"＞ hi ﹤Bob", "› hi ‹Bob"},
		{"a\u2028b\u0085c", "a b c"},
		{strings.Repeat("é", 40), strings.Repeat("é", 18) + "…"},
	} {
		if got := Name(test.in, 40); got != test.want {
			t.Errorf("Name(%q) = %q, want %q", test.in, got, test.want)
		}
	}
	if got := NoPing("alice"); got != "a\u200blice" {
		t.Errorf("NoPing: %q", got)
	}
}
