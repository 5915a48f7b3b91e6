package bridgetest

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// maxLeaks is how many are remembered: one is enough to fail a test.
const maxLeaks = 20

// noteLeak remembers a request whose URL holds a token. The data must be locked.
func (hs *Homeserver) noteLeak(r *http.Request) {
	if len(hs.leaks) >= maxLeaks {
		return
	}
	what := ""
	for pair := range strings.FieldsFuncSeq(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescaped(name), unescaped(value)
		switch {
		case strings.EqualFold(name, "access_token"):
			what = "carried access_token in its query"
		case hs.holdsSecret(name):
			what = "carried a token in its query, as a name"
		case hs.holdsSecret(value):
			what = "carried a token in its query, as " + name
		}
	}
	path := strings.Split(r.URL.Path, "/")
	for i, part := range path {
		if hs.holdsSecret(part) {
			what, path[i] = "carried a token in its path", "…"
		}
	}
	if what != "" {
		hs.leaks = append(hs.leaks, r.Method+" "+strings.Join(path, "/")+" "+what)
	}
}

// unescaped leaves what cannot be unescaped as it is.
func unescaped(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// longEnough is the length in bytes from which on a token is looked for inside of other text too.
const longEnough = 8

// userToken is what tokens of users look like here: those for access, and those for renewing them.
var userToken = regexp.MustCompile(`sy[tr]_[A-Za-z]{24}`)

// holdsSecret tells whether text is, or holds, a token of a user or an appservice.
func (hs *Homeserver) holdsSecret(text string) bool {
	if userToken.MatchString(text) {
		return true
	}
	for _, as := range hs.services {
		for _, token := range []string{as.reg.ASToken, as.reg.HSToken} {
			if text == token || len(token) >= longEnough && strings.Contains(text, token) {
				return true
			}
		}
	}
	return false
}
