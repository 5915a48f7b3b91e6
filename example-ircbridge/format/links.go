package format

import (
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// link writes a link as its text with the address behind it, as the address alone when the text says the same, and a
// mention of somebody as the name alone.
func (w *writer) link(n *html.Node, c context) {
	address := strings.TrimSpace(CleanPlain(attribute(n, "href")))
	target, err := url.Parse(address)
	if address == "" || err != nil || isMention(target) || !isShown(target.Scheme) || w.hidden > 0 {
		w.children(n, c)
		return
	}
	address = strings.NewReplacer(" ", "%20", "\n", "").Replace(address)
	if text := strings.TrimSpace(textOf(n)); text == "" || sameAddress(text, address) {
		w.lines(address, c.style)
		return
	}
	w.children(n, c)
	w.lines(" ("+address+")", c.style)
}

// isMention reports whether a link names a user or a room, whose text is then enough: https://matrix.to/#/@user:server,
// matrix:u/user:server. Links to an event are links.
func isMention(u *url.URL) bool {
	switch {
	case u.Scheme == "matrix":
		return !strings.Contains(u.Opaque, "/e/") && !strings.Contains(u.Path, "/e/")
	case u.Host == "matrix.to" && (u.Scheme == "https" || u.Scheme == "http"):
		target, ok := strings.CutPrefix(u.Fragment, "/")
		if !ok || target == "" {
			return false
		}
		return strings.ContainsRune("@#!", rune(target[0])) && !strings.Contains(target, "/")
	}
	return false
}

// isShown are the schemes that the client-server API lets into links, and matrix.
func isShown(scheme string) bool {
	switch strings.ToLower(scheme) {
	case "http", "https", "ftp", "mailto", "magnet", "matrix":
		return true
	}
	return false
}

func sameAddress(text, address string) bool {
	bare := func(s string) string {
		for _, prefix := range [...]string{"https://", "http://", "mailto:"} {
			if rest, ok := strings.CutPrefix(s, prefix); ok {
				s = rest
				break
			}
		}
		return strings.TrimSuffix(s, "/")
	}
	return text == address || bare(text) == bare(address)
}

func textOf(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
		for child := n.FirstChild; child != nil; child = child.NextSibling {
			walk(child)
		}
	}
	walk(n)
	return CleanPlain(b.String())
}
