package bridgetest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxLeaks is how many are remembered: one is enough to fail a test.
const maxLeaks = 20

// noteLeak remembers a request whose URL holds a token. The data must be locked.
func (hs *Homeserver) noteLeak(r *http.Request) {
	if len(hs.leaks) >= maxLeaks {
		return
	}
	query, _ := url.ParseQuery(r.URL.RawQuery) // what is broken is not looked for
	what := ""
	for name, values := range query {
		switch {
		case strings.EqualFold(name, "access_token"):
			what = "carried access_token in its query"
		case slices.ContainsFunc(values, hs.secret):
			what = "carried a token in its query, as " + name
		}
	}
	path := strings.Split(r.URL.Path, "/")
	for i, part := range path {
		if hs.secret(part) {
			what, path[i] = "carried a token in its path", "…"
		}
	}
	if what != "" {
		hs.leaks = append(hs.leaks, r.Method+" "+strings.Join(path, "/")+" "+what)
	}
}

// secret tells whether text is the token of a user or an appservice.
func (hs *Homeserver) secret(text string) bool {
	if hs.tokens[text] != nil {
		return true
	}
	for _, as := range hs.services {
		if text == as.reg.ASToken || text == as.reg.HSToken {
			return true
		}
	}
	return false
}
