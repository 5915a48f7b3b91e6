package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

// ServerConfig is what a Server needs. HomeserverURL, Token, and Store or Keys must be given; the rest has defaults.
type ServerConfig struct {
	HomeserverURL string   // the only server that media is asked of
	Token         string   // the as_token; sent to HomeserverURL in the Authorization header, and nowhere else
	PublicURL     string   // the signer's: the absolute links of pages begin with it; "": previews of pages have no picture
	Store         Links    // where records, keys and revocations are; nil: self-contained links only, and Keys is needed
	Keys          *KeyRing // nil: opened from Store. In one process with a Signer, give its Keys

	// Revoked tells whether the media of an event was revoked, for self-contained links where there is no Store. It is called after the MAC holds, and
	// twice a second while a file is sent. Nil: such links end only by their expiry or their key.
	Revoked func(ctx context.Context, room id.RoomID, event id.EventID) (bool, error)

	MaxSize        int64         // bytes of one file; 0: 100 MiB
	Streams        int           // requests served at once; 0: 64
	StreamsPerIP   int           // of them for one address (IPv6: one /64); 0: 8
	StreamsPerRoom int           // of them for files of one room; 0: 32
	QueueWait      time.Duration // how long a request waits for a place before 429; 0: 10 s; negative: not at all

	Rates Rates // requests and bytes in a minute

	// CacheDir is the folder of the disk cache, the process's own; "": there is none, and each request fetches for itself. Encrypted files then wait
	// for their last byte in the system's folder for temporary files, as ciphertext.
	CacheDir  string
	CacheSize int64         // bytes of disk; 0: 1 GiB. No file over half of it is cached
	CacheAge  time.Duration // since a file was fetched; 0: 7 days

	FirstByte time.Duration // until the homeserver answers, redirects included; 0: 30 s
	Stall     time.Duration // without a byte from the homeserver, or without the reader taking 64 KiB; 0: 30 s
	Total     time.Duration // of one answer; 0: 1 h

	TrustedProxies   []netip.Prefix // reverse proxies whose X-Forwarded-For names the reader; none: the peer's address is the reader's
	RedirectNetworks []netip.Prefix // private networks that a homeserver's redirect may lead to; none: public addresses only
	RedirectHTTP     bool           // let redirects lead to plain http

	Decrypter Decrypter // opens encrypted files; nil: they are answered with 501

	HTTPClient *http.Client          // its Transport carries requests to the homeserver; nil: a tuned one
	Log        zerolog.Logger        // access log and failures; neither MACs nor tokens
	Metrics    prometheus.Registerer // nil: none registered
	Now        func() time.Time      // nil: time.Now
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func homeserverBase(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("the homeserver's URL for the media proxy: give scheme, host and port, such as http://localhost:8008")
	}
	return strings.TrimRight(s, "/"), nil
}

func homeserverTransport(client *http.Client) http.RoundTripper {
	if client != nil && client.Transport != nil {
		return client.Transport
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 32
	t.MaxResponseHeaderBytes = 64 << 10
	t.ReadBufferSize = chunk
	return t
}
