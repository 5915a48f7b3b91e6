package proxy

import (
	"net/http"
	"strconv"
	"strings"
)

// byteRange is one part of a file.
type byteRange struct{ start, length int64 }

type rangeVerdict uint8

const (
	rangeNone  rangeVerdict = iota // the whole file: 200
	rangeOne                       // one part: 206
	rangeUnmet                     // 416
)

// parseRange reads a Range header (RFC 9110, section 14.2) for a file of size bytes.
//
// Several ranges are answered with the whole file, as the RFC allows: the parts would have to be read from the homeserver in their order. A unit
// that is not bytes is ignored, as the RFC demands. A range that makes no sense is 416, as in [http.ServeContent].
func parseRange(header string, size int64) (byteRange, rangeVerdict) {
	unit, list, found := strings.Cut(header, "=")
	if header == "" || !found && !strings.HasPrefix(header, "bytes") || found && !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return byteRange{}, rangeNone
	}
	if !found {
		return byteRange{}, rangeUnmet
	}
	spec := ""
	for part := range strings.SplitSeq(list, ",") {
		part = strings.Trim(part, " \t")
		if part == "" {
			continue
		}
		if spec != "" {
			return byteRange{}, rangeNone
		}
		spec = part
	}
	if spec == "" {
		return byteRange{}, rangeNone
	}
	first, last, found := strings.Cut(spec, "-")
	if !found {
		return byteRange{}, rangeUnmet
	}
	first, last = strings.Trim(first, " \t"), strings.Trim(last, " \t")
	if first == "" { // the last n bytes
		n, ok := parseOffset(last)
		if !ok || n == 0 {
			return byteRange{}, rangeUnmet
		}
		n = min(n, size)
		if n == 0 { // an empty file has no part; all of it is what there is
			return byteRange{}, rangeNone
		}
		return byteRange{size - n, n}, rangeOne
	}
	start, ok := parseOffset(first)
	if !ok {
		return byteRange{}, rangeUnmet
	}
	if start >= size {
		if size == 0 {
			return byteRange{}, rangeNone
		}
		return byteRange{}, rangeUnmet
	}
	end := size - 1
	if last != "" {
		n, ok := parseOffset(last)
		if !ok || n < start {
			return byteRange{}, rangeUnmet
		}
		end = min(n, end)
	}
	return byteRange{start, end - start + 1}, rangeOne
}

// parseOffset reads digits only: no sign, and nothing beyond an int64.
func parseOffset(s string) (int64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// precondition decides a request by its If-Match and If-None-Match (RFC 9110, section 13.2.2): 412, 304, or 0 to go on. There is no
// Last-Modified, so the conditions on dates do not apply.
func precondition(h http.Header, etag string) int {
	if v := joined(h, "If-Match"); v != "" && !matchesETag(v, etag, false) {
		return http.StatusPreconditionFailed
	}
	if v := joined(h, "If-None-Match"); v != "" && matchesETag(v, etag, true) {
		return http.StatusNotModified
	}
	return 0
}

// namesAny tells whether If-None-Match is "*", which holds for any file, but only where there is one.
func namesAny(h http.Header) bool {
	return strings.HasPrefix(strings.Trim(joined(h, "If-None-Match"), " \t,"), "*")
}

// rangeApplies decides by If-Range whether Range is looked at. Only a strong match lets it: parts of two files must never be joined.
func rangeApplies(h http.Header, etag string) bool {
	v := h.Get("If-Range")
	return v == "" || strings.TrimSpace(v) == etag
}

func joined(h http.Header, name string) string { return strings.Join(h.Values(name), ",") }

// matchesETag looks for etag, which is strong, in a list of entity tags or "*".
func matchesETag(list, etag string, weak bool) bool {
	for list = strings.Trim(list, " \t,"); list != ""; list = strings.Trim(list, " \t,") {
		if list[0] == '*' {
			return true
		}
		isWeak := strings.HasPrefix(list, "W/")
		tag := strings.TrimPrefix(list, "W/")
		if tag == "" || tag[0] != '"' {
			return false
		}
		end := strings.IndexByte(tag[1:], '"')
		if end < 0 {
			return false
		}
		if tag[:end+2] == etag && (weak || !isWeak) {
			return true
		}
		list = tag[end+2:]
	}
	return false
}
