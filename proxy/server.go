package proxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// ServerConfig is what a Server needs. HomeserverURL, Token, and Store or Keys must be given; the rest has defaults.
type ServerConfig struct {
	HomeserverURL string       // the only server that media is asked of
	Token         string       // the as_token; sent to HomeserverURL in the Authorization header, and nowhere else
	Store         *store.Store // where records and keys are; nil: self-contained links only, and Keys is needed
	Keys          *KeyRing     // nil: opened from Store. In one process with a Signer, give its Keys

	// Revoked tells whether the media of an event was revoked, for self-contained links, which have no record. It is called after the MAC
	// holds. Nil: such links end only by their expiry or their key.
	Revoked func(ctx context.Context, room id.RoomID, event id.EventID) (bool, error)

	MaxSize      int64         // bytes of one file; 0: 100 MiB
	Streams      int           // requests served at once; 0: 64
	StreamsPerIP int           // of them for one address (IPv6: one /64); 0: 8
	QueueWait    time.Duration // how long a request waits for a place before 429; 0: 2 s; negative: not at all

	FirstByte time.Duration // until the homeserver answers, redirects included; 0: 30 s
	Stall     time.Duration // without a byte from the homeserver, or without the reader taking 64 KiB; 0: 30 s
	Total     time.Duration // of one answer; 0: 1 h

	TrustedProxies   []netip.Prefix // reverse proxies whose X-Forwarded-For names the reader; none: the peer's address is the reader's
	RedirectNetworks []netip.Prefix // private networks that a homeserver's redirect may lead to; none: public addresses only
	RedirectHTTP     bool           // let redirects lead to plain http

	HTTPClient *http.Client          // its Transport carries requests to the homeserver; nil: a tuned one
	Log        zerolog.Logger        // access log and failures; neither MACs nor tokens
	Metrics    prometheus.Registerer // nil: none registered
	Now        func() time.Time      // nil: time.Now
}

// Server answers media links. It is an http.Handler.
type Server struct {
	cfg ServerConfig
}

// NewServer checks the configuration, opens the key ring, and registers the metrics.
func NewServer(cfg ServerConfig) (*Server, error) { return &Server{cfg: cfg}, nil }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

// Serve answers requests on l until ctx ends, then lets streams under way finish for up to ten seconds. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return nil }

// Reload reads the keys again, so that a rotation made elsewhere holds here at once.
func (s *Server) Reload(ctx context.Context) error { return s.cfg.Keys.Reload(ctx) }
