package irc

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// validNick knows the characters of RFC 2812, section 2.3.1.
func validNick(nick string) bool {
	for i := range len(nick) {
		c := nick[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', strings.IndexByte("[]\\`_^{|}", c) >= 0:
		case i > 0 && ('0' <= c && c <= '9' || c == '-'):
		default:
			return false
		}
	}
	return nick != ""
}

// fallbackNick is what to try when the wanted nick cannot be had, for the n-th time (from 1). The first are the nick with
// underscores; then, for servers whose limit is not known yet and that cut what is too long, its end is replaced; then come
// random ones of nine bytes, which every server takes (RFC 1459, section 1.2).
func fallbackNick(wanted string, n, limit int) string {
	fit := func(base, end string) string {
		if limit <= 0 {
			limit = 30
		}
		if room := max(limit-len(end), 0); len(base) > room {
			base = base[:room]
		}
		return base + end
	}
	switch {
	case n <= 2:
		return fit(wanted, strings.Repeat("_", n))
	case n <= 5:
		base := wanted[:min(len(wanted), 8)]
		return fit(base, strconv.Itoa(n-2))
	default:
		return fit(wanted[:min(len(wanted), 4)], strconv.Itoa(10_000+rand.IntN(90_000)))
	}
}
