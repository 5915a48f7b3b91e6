package format

import "strings"

// StripReply removes the fallback that clients put before a reply (MSC2781): the quoted lines of the body, and
// <mx-reply> of the HTML. What it quotes is whatever its sender claims, so it must never be shown. Only the one
// fallback goes: a quotation of the sender's own after it stays.
//
// The body is touched only when it starts as a fallback does, with "> <@user:server>" or "> * <@user:server>"; call it
// for events that are replies.
func StripReply(body, html string) (string, string) {
	return stripBody(body), stripHTML(html)
}

func stripBody(body string) string {
	if !strings.HasPrefix(body, "> <@") && !strings.HasPrefix(body, "> * <@") {
		return body
	}
	rest := body
	for strings.HasPrefix(rest, ">") {
		var more bool
		if _, rest, more = strings.Cut(rest, "\n"); !more {
			return ""
		}
	}
	// The empty line ends the fallback.
	rest = strings.TrimPrefix(rest, "\r")
	return strings.TrimPrefix(rest, "\n")
}

// stripHTML drops from <mx-reply> to its end tag or, when that is missing, to the end of the first blockquote, or of
// everything: nothing in it may pass for the sender's own words.
func stripHTML(html string) string {
	for {
		start := indexTag(html, "<mx-reply")
		if start < 0 {
			return html
		}
		inside := html[start:]
		end := len(inside)
		if i := endOfTag(inside, "</mx-reply"); i >= 0 {
			end = i
		} else if i := endOfTag(inside, "</blockquote"); i >= 0 {
			end = i
		}
		html = html[:start] + strings.TrimLeft(inside[end:], " \n")
	}
}

// indexTag finds a tag by its lower-case start. HTML's tag names are ASCII, so case is folded byte by byte and offsets
// stay true.
func indexTag(html, tag string) int {
	for i := 0; i+len(tag) <= len(html); i++ {
		if html[i] != '<' || !asciiEqualFold(html[i:i+len(tag)], tag) {
			continue
		}
		if next := i + len(tag); next == len(html) || strings.IndexByte(" \t\n\r\f/>", html[next]) >= 0 {
			return i
		}
	}
	return -1
}

func endOfTag(html, tag string) int {
	i := indexTag(html, tag)
	if i < 0 {
		return -1
	}
	if close := strings.IndexByte(html[i:], '>'); close >= 0 {
		return i + close + 1
	}
	return len(html)
}

func asciiEqualFold(a, b string) bool {
	for i := range len(a) {
		x, y := a[i], b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}
