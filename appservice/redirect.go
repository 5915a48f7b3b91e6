package appservice

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const maxRedirects = 5

var (
	// errRedirect says that a homeserver sent a request that carries the token, and must be made there, elsewhere.
	errRedirect = errors.New("redirect to another host refused: the request would carry the token there")
	// errDowngrade says that a media download was to go on without encryption.
	errDowngrade = errors.New("redirect from https to http refused")
)

// checkRedirect lets requests go on at the same scheme, host and port. A media download may go elsewhere, to a content
// delivery network, but without the token (MSC3916), and from there never again with it: what such a network wants asked
// of the homeserver is none of the bridge's requests.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errors.New("too many redirects")
	}
	first, left := via[0].URL, false
	for _, step := range append(via[1:len(via):len(via)], req) {
		left = left || !sameOrigin(step.URL, first)
	}
	if !left {
		return nil
	}
	if req.Method != http.MethodGet || !strings.Contains(first.Path, "/media/") {
		return errRedirect
	}
	if first.Scheme == "https" && req.URL.Scheme != "https" {
		return errDowngrade
	}
	// net/http drops these for another host, and keeps them for another port and for subdomains of the same one.
	req.Header.Del("Authorization")
	req.Header.Del("Cookie")
	req.Header.Del("Referer")
	req.URL.User = nil // net/http would make an Authorization of it
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a.Scheme, a.Host) == hostPort(b.Scheme, b.Host)
}

func hostPort(scheme, host string) string {
	if h, p, err := net.SplitHostPort(host); err == nil {
		return strings.ToLower(h) + ":" + p
	}
	if scheme == "https" {
		return strings.ToLower(host) + ":443"
	}
	return strings.ToLower(host) + ":80"
}
