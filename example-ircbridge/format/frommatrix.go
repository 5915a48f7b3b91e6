package format

import (
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// FromMatrix turns a Matrix message into IRC text of one or more lines. Without formatted, or when that shows nothing or
// is no HTML, the body is used as it is. reply says that the message is a reply: the fallback goes from the body
// (MSC2781); from HTML it goes always.
func FromMatrix(body, formatted string, reply bool) string {
	if formatted != "" {
		if text := fromHTML(stripHTML(formatted)); strings.TrimSpace(Strip(text)) != "" {
			return text
		}
	}
	if reply {
		body = stripBody(body)
	}
	return strings.Trim(CleanPlain(body), "\n")
}

func fromHTML(formatted string) string {
	nodes, err := html.ParseFragment(strings.NewReader(formatted), &html.Node{Type: html.ElementNode, Data: "body", DataAtom: atom.Body})
	if err != nil {
		// The parser refuses nesting that is too deep.
		return ""
	}
	w := newWriter()
	for _, n := range nodes {
		w.node(n, context{style: plain})
	}
	return w.finish()
}

// context is what the elements around a node make of it. Depth is the parser's concern: it stops at 512.
type context struct {
	style style
	pre   bool
	depth int // of lists
}

func (w *writer) node(n *html.Node, c context) {
	switch n.Type {
	case html.TextNode:
		text := CleanPlain(n.Data)
		if c.pre {
			w.lines(text, c.style)
		} else {
			w.flow(text, c.style)
		}
	case html.ElementNode:
		w.element(n, c)
	}
}

func (w *writer) children(n *html.Node, c context) {
	for child := n.FirstChild; child != nil; child = child.NextSibling {
		w.node(child, c)
	}
}

func (w *writer) element(n *html.Node, c context) {
	switch n.DataAtom {
	case atom.Script, atom.Style, atom.Title, atom.Head, atom.Template, atom.Iframe, atom.Noscript:
		return
	case atom.B, atom.Strong:
		c.style.bold = true
	case atom.I, atom.Em, atom.Cite:
		c.style.italic = true
	case atom.U, atom.Ins:
		c.style.underline = true
	case atom.S, atom.Strike, atom.Del:
		c.style.strike = true
	case atom.Code, atom.Tt, atom.Kbd, atom.Samp:
		c.style.mono = true
	case atom.Font, atom.Span:
		w.span(n, c)
		return
	case atom.Br:
		w.breakLine()
		return
	case atom.Hr:
		w.block(func() { w.flow("———", c.style) })
		return
	case atom.Img:
		w.flow(CleanPlain(first(attribute(n, "alt"), attribute(n, "title"))), c.style)
		return
	case atom.A:
		w.link(n, c)
		return
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		c.style.bold = true
		w.block(func() { w.children(n, c) })
		return
	case atom.P, atom.Details, atom.Summary, atom.Table, atom.Caption, atom.Thead, atom.Tbody, atom.Tfoot, atom.Section, atom.Article:
		w.block(func() { w.children(n, c) })
		return
	case atom.Div:
		w.block(func() { w.maths(n, c, "$$") })
		return
	case atom.Tr:
		w.block(func() { w.row(n, c) })
		return
	case atom.Blockquote:
		w.block(func() {
			w.prefixes = append(w.prefixes, "> ")
			w.children(n, c)
			w.endBlock()
			w.prefixes = w.prefixes[:len(w.prefixes)-1]
		})
		return
	case atom.Pre:
		c.pre, c.style.mono = true, true
		w.block(func() { w.children(n, c) })
		return
	case atom.Ul, atom.Ol:
		w.list(n, c)
		return
	case atom.Li: // outside of a list
		w.item("• ", n, c)
		return
	}
	w.children(n, c)
}

// span is what <span> and <font> may mean: a spoiler, a formula, colours.
func (w *writer) span(n *html.Node, c context) {
	if reason, ok := lookup(n, "data-mx-spoiler"); ok {
		label := "(spoiler) "
		if reason = strings.TrimSpace(CleanPlain(reason)); reason != "" {
			label = "(spoiler: " + strings.ReplaceAll(reason, "\n", " ") + ") "
		}
		w.flow(label, c.style)
		c.style.fg, c.style.bg = 0x000000, 0x000000
		w.hidden++
		w.children(n, c)
		w.hidden--
		return
	}
	if w.hidden == 0 {
		if fg := parseHTML(first(attribute(n, "data-mx-color"), attribute(n, "color"))); fg != noColour {
			c.style.fg = fg
		}
		if bg := parseHTML(attribute(n, "data-mx-bg-color")); bg != noColour {
			c.style.bg = bg
		}
		if c.style.fg != noColour && c.style.fg == c.style.bg {
			// Only a spoiler hides text.
			c.style.bg = noColour
		}
	}
	if n.DataAtom == atom.Span {
		w.maths(n, c, "$")
		return
	}
	w.children(n, c)
}

// maxFormula is the longest LaTeX shown, in bytes; longer formulas show their fallback.
const maxFormula = 1024

// maths shows the LaTeX of a formula (MSC2191), or the element's content when it is none.
func (w *writer) maths(n *html.Node, c context, mark string) {
	latex := strings.TrimSpace(CleanPlain(attribute(n, "data-mx-maths")))
	if latex == "" || len(latex) > maxFormula {
		w.children(n, c)
		return
	}
	w.flow(mark+strings.Join(strings.Fields(latex), " ")+mark, c.style)
}

func (w *writer) list(n *html.Node, c context) {
	number := 1
	if start, err := strconv.Atoi(attribute(n, "start")); err == nil {
		number = start
	}
	c.depth++
	w.block(func() {
		for child := n.FirstChild; child != nil; child = child.NextSibling {
			if child.Type != html.ElementNode || child.DataAtom != atom.Li {
				w.node(child, c)
				continue
			}
			mark := "• "
			if n.DataAtom == atom.Ol {
				mark = strconv.Itoa(number) + ". "
				number++
			}
			w.item(mark, child, c)
		}
	})
}

func (w *writer) item(mark string, n *html.Node, c context) {
	w.block(func() {
		indent := min(max(c.depth-1, 0), 8)
		w.lines(strings.Repeat("  ", indent)+mark, c.style)
		w.glue = true
		w.children(n, c)
		w.glue = false
	})
}

func (w *writer) row(n *html.Node, c context) {
	cells := 0
	for child := n.FirstChild; child != nil; child = child.NextSibling {
		if child.Type != html.ElementNode {
			continue
		}
		if cells > 0 {
			w.lines(" | ", c.style)
		}
		cells++
		w.node(child, c)
	}
}

func lookup(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Namespace == "" && a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func attribute(n *html.Node, name string) string {
	value, _ := lookup(n, name)
	return value
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
