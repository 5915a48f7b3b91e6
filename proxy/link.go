package proxy

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	shortPrefix         = "/m/"
	selfContainedPrefix = "/media/"

	maxGrammar = 255  // bytes of a server name and of a media ID
	maxSegment = 1024 // bytes of the name at the end of a link, as escaped
	maxQuery   = 4096 // bytes of a self-contained link's query
)

// path is the link's path and query, with the MAC in it. display is the name for people.
func (c *claims) path(m mac, display string) string {
	var b strings.Builder
	if c.purpose != purposeSelfContained {
		b.WriteString(shortPrefix)
		if z := c.purpose.thumbnail(); z != nil {
			b.WriteString(z.segment)
			b.WriteByte('/')
		}
		b.WriteString(formatToken(c.key, c.record, m))
	} else {
		b.WriteString(selfContainedPrefix)
		b.WriteString(url.PathEscape(c.server))
		b.WriteByte('/')
		b.WriteString(c.mediaID)
	}
	if display != "" {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(display))
	}
	if c.purpose == purposeSelfContained {
		b.WriteByte('?')
		b.WriteString(c.query(m))
	}
	return b.String()
}

// query is the one query that says these claims. A parser that accepts only this one accepts no parameter that is not signed.
func (c *claims) query(m mac) string {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	if c.created != 0 {
		set("c", strconv.FormatInt(c.created, 10))
	}
	set("k", strconv.Itoa(int(c.key)))
	if c.expires != 0 {
		set("x", strconv.FormatInt(c.expires, 10))
	}
	set("r", c.room)
	set("e", c.event)
	set("t", c.mime)
	set("d", c.disposition)
	set("n", c.name)
	return v.Encode() + "&mac=" + formatMAC(m)
}

// parseLink reads a link. escapedPath is as it came over the wire. It asks nothing of anyone; whether the MAC holds is not its business.
func parseLink(escapedPath, rawQuery string) (c claims, m mac, ok bool) {
	switch {
	case strings.HasPrefix(escapedPath, shortPrefix):
		return parseShort(escapedPath[len(shortPrefix):])
	case strings.HasPrefix(escapedPath, selfContainedPrefix):
		return parseSelfContained(escapedPath[len(selfContainedPrefix):], rawQuery)
	}
	return c, m, false
}

// parseShort does not look at the query: it has no meaning, and sites that pass links on add to it.
func parseShort(rest string) (c claims, m mac, ok bool) {
	c.purpose = purposeShort
	token, name, found := strings.Cut(rest, "/")
	if z := thumbnailAt(token); z != nil && found {
		c.purpose = z.purpose
		token, name, _ = strings.Cut(name, "/")
	}
	if !validSegment(name) {
		return c, m, false
	}
	c.key, c.record, m, ok = parseToken(token)
	return c, m, ok
}

func parseSelfContained(rest, rawQuery string) (c claims, m mac, ok bool) {
	server, rest, found := strings.Cut(rest, "/")
	if !found || len(server) > 3*maxGrammar || len(rawQuery) > maxQuery {
		return c, m, false
	}
	mediaID, name, _ := strings.Cut(rest, "/")
	if !validSegment(name) {
		return c, m, false
	}
	c.purpose = purposeSelfContained
	var err error
	if c.server, err = url.PathUnescape(server); err != nil || !validServerName(c.server) {
		return c, m, false
	}
	// A media ID has no character that needs escaping, so an escaped one is refused as it stands.
	if c.mediaID = mediaID; !validMediaID(mediaID) {
		return c, m, false
	}
	v, err := url.ParseQuery(rawQuery)
	if err != nil {
		return c, m, false
	}
	key, err := strconv.ParseUint(v.Get("k"), 10, 8)
	if err != nil {
		return c, m, false
	}
	c.key = uint8(key)
	if x := v.Get("x"); x != "" {
		if c.expires, err = strconv.ParseInt(x, 10, 64); err != nil || c.expires <= 0 {
			return c, m, false
		}
	}
	if at := v.Get("c"); at != "" {
		if c.created, err = strconv.ParseInt(at, 10, 64); err != nil || c.created <= 0 {
			return c, m, false
		}
	}
	c.room, c.event, c.mime, c.disposition, c.name = v.Get("r"), v.Get("e"), v.Get("t"), v.Get("d"), v.Get("n")
	if m, ok = parseMAC(v.Get("mac")); !ok {
		return c, m, false
	}
	// One link, one spelling: parameters that are unknown, repeated, empty or out of place end here.
	if c.query(m) != rawQuery || url.PathEscape(c.server) != server {
		return c, m, false
	}
	return c, m, true
}

// validSegment accepts a name for people: at most one path segment, of any content.
func validSegment(s string) bool { return len(s) <= maxSegment && !strings.Contains(s, "/") }

// validMediaID is the grammar of the Matrix specification (client-server API, "Matrix content URIs"), with a limit.
func validMediaID(s string) bool {
	if s == "" || len(s) > maxGrammar {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return true
}

// validServerName is the grammar of the Matrix specification (appendices, "Server name"): a DNS name, an IPv4 address or an IPv6 address
// in brackets, each with an optional port.
func validServerName(s string) bool {
	if s == "" || len(s) > maxGrammar {
		return false
	}
	if s[0] == '[' {
		literal, port, found := strings.Cut(s[1:], "]")
		if !found {
			return false
		}
		addr, err := netip.ParseAddr(literal)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return false
		}
		return port == "" || port[0] == ':' && validPort(port[1:])
	}
	host, port, found := strings.Cut(s, ":")
	if found && !validPort(port) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" {
			return false
		}
		for i := range len(label) {
			if !isAlphanumeric(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func validPort(s string) bool {
	if len(s) == 0 || len(s) > 5 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
