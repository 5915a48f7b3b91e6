package proxy

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
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
	// holds, and once a second while a file is sent. Nil: such links end only by their expiry or their key.
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

// recordSource is what the server needs of the store, besides keys.
type recordSource interface {
	Media(ctx context.Context, id int64) (*store.Media, error)
}

// Server answers media links. It is an http.Handler; see [Server.Serve] for a listener with the right time limits.
type Server struct {
	keys     *KeyRing
	records  recordSource // nil: self-contained links only
	revoked  func(ctx context.Context, room id.RoomID, event id.EventID) (bool, error)
	upstream *upstream
	gate     *gate
	metrics  *metrics
	log      zerolog.Logger
	trusted  []netip.Prefix
	stall    time.Duration
	total    time.Duration
	now      func() time.Time
}

var _ http.Handler = (*Server)(nil)

// NewServer checks the configuration, opens the key ring where none is given, and registers the metrics.
func NewServer(cfg ServerConfig) (*Server, error) {
	base, err := homeserverBase(cfg.HomeserverURL)
	if err != nil {
		return nil, err
	}
	if cfg.Token == "" || strings.ContainsAny(cfg.Token, "\r\n") {
		return nil, errors.New("the media proxy needs the as_token to fetch media")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Keys == nil {
		if cfg.Store == nil {
			return nil, errors.New("the media proxy needs Store, or Keys for self-contained links only")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if cfg.Keys, err = OpenKeyRing(ctx, cfg.Store, cfg.Now); err != nil {
			return nil, err
		}
	}
	if cfg.MaxSize < 0 || cfg.Streams < 0 || cfg.StreamsPerIP < 0 || cfg.FirstByte < 0 || cfg.Stall < 0 || cfg.Total < 0 {
		return nil, errors.New("the limits of the media proxy may not be negative")
	}
	transport := homeserverTransport(cfg.HTTPClient)
	s := &Server{
		keys:    cfg.Keys,
		revoked: cfg.Revoked,
		gate:    newGate(or(cfg.Streams, 64), or(cfg.StreamsPerIP, 8), or(cfg.QueueWait, 2*time.Second)),
		log:     cfg.Log,
		trusted: cfg.TrustedProxies,
		stall:   or(cfg.Stall, 30*time.Second),
		total:   or(cfg.Total, time.Hour),
		now:     cfg.Now,
	}
	if cfg.Store != nil {
		s.records = cfg.Store
	}
	if s.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	s.upstream = &upstream{
		base:         base,
		token:        cfg.Token,
		homeserver:   &http.Client{Transport: transport, CheckRedirect: oneAnswer},
		redirect:     newRedirectClient(transport, cfg.RedirectNetworks),
		redirectHTTP: cfg.RedirectHTTP,
		maxSize:      or(cfg.MaxSize, 100<<20),
		firstByte:    or(cfg.FirstByte, 30*time.Second),
		stall:        s.stall,
		now:          cfg.Now,
		denied:       s.metrics.denied.Inc,
	}
	return s, nil
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

// ServeHTTP answers one request. A path that is no link's is 404, whatever the method.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, control: http.NewResponseController(w), reader: readerOf(r, s.trusted), began: time.Now()}
	defer s.finish(x)
	guard(w.Header())
	if r.ContentLength != 0 {
		// Nothing here reads a body, and a slow one must not hold the connection.
		w.Header().Set("Connection", "close")
		_ = x.control.SetReadDeadline(time.Now().Add(time.Second))
	}
	path := r.URL.EscapedPath()
	robots := path == "/robots.txt"
	switch {
	case !robots && !strings.HasPrefix(path, shortPrefix) && !strings.HasPrefix(path, selfContainedPrefix):
		x.refuse(http.StatusNotFound, nil)
	case r.Method == http.MethodOptions:
		x.answerOptions()
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		x.refuse(http.StatusMethodNotAllowed, nil)
	case robots:
		x.answerRobots()
	default:
		s.answerLink(x, path)
	}
}

// answerLink asks nothing of anyone before the MAC holds.
func (s *Server) answerLink(x *exchange, path string) {
	c, m, ok := parseLink(path, x.r.URL.RawQuery)
	if !ok {
		x.refuse(http.StatusNotFound, nil)
		return
	}
	if !s.keys.verify(&c, m) {
		s.metrics.macFailures.Inc()
		x.refuse(http.StatusNotFound, nil)
		return
	}
	x.link = c
	if !s.gate.enter(x.r.Context(), x.reader) {
		x.refuse(http.StatusTooManyRequests, nil)
		return
	}
	defer s.gate.leave(x.reader)
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	ctx, cancel := context.WithTimeoutCause(x.r.Context(), s.total, errTotal)
	defer cancel()

	if lives, err := s.keys.lives(ctx, c.key); err != nil {
		x.refuse(http.StatusServiceUnavailable, err)
		return
	} else if !lives {
		x.refuse(http.StatusNotFound, nil)
		return
	}
	t, err := s.resolve(ctx, &c)
	if err != nil {
		status := http.StatusServiceUnavailable
		var f *failure
		if errors.As(err, &f) {
			status = f.status
		}
		x.refuse(status, err)
		return
	}
	s.serve(ctx, x, t)
}

var (
	errEnded = &failure{http.StatusGone, errors.New("the link has ended")}
	errGone  = &failure{http.StatusGone, errRevoked}
)

// resolve settles what a link whose MAC holds leads to. The record is read each time, so that a revocation holds at once.
func (s *Server) resolve(ctx context.Context, c *claims) (*target, error) {
	t := &target{disposition: inline}
	if c.purpose == purposeShort {
		if s.records == nil {
			return nil, failed(http.StatusNotFound, "a short link, and no store to look its record up")
		}
		record, err := s.records.Media(ctx, c.record)
		switch {
		case errors.Is(err, store.ErrNotFound): // the MAC holds, so there was a record once
			return nil, errEnded
		case err != nil:
			return nil, fmt.Errorf("read record %d: %w", c.record, err)
		case !record.Revoked.IsZero():
			return nil, errGone
		case len(record.Info) > 0:
			return nil, failed(http.StatusNotImplemented, "record %d is of encrypted media: %w", c.record, ErrEncrypted)
		case !validServerName(record.Server) || !validMediaID(record.MediaID):
			return nil, failed(http.StatusNotFound, "record %d: %w", c.record, ErrBadMedia)
		}
		t.server, t.mediaID, t.name, t.mime, t.expires = record.Server, record.MediaID, record.Name, record.MIME, record.Expires
		t.revoked = func(ctx context.Context) (bool, error) {
			record, err := s.records.Media(ctx, c.record)
			if errors.Is(err, store.ErrNotFound) {
				return true, nil
			}
			return err == nil && !record.Revoked.IsZero(), err
		}
	} else {
		t.server, t.mediaID, t.name, t.mime, t.disposition = c.server, c.mediaID, c.name, c.mime, c.disposition
		if c.expires != 0 {
			t.expires = time.Unix(c.expires, 0)
		}
		t.revoked = func(ctx context.Context) (bool, error) {
			if s.revoked == nil || c.event == "" {
				return false, nil
			}
			return s.revoked(ctx, id.RoomID(c.room), id.EventID(c.event))
		}
	}
	if !t.expires.IsZero() && !s.now().Before(t.expires) {
		return nil, errEnded
	}
	if c.purpose == purposeSelfContained {
		revoked, err := t.revoked(ctx)
		if err != nil {
			return nil, fmt.Errorf("ask whether event %s was revoked: %w", c.event, err)
		}
		if revoked {
			return nil, errGone
		}
	}
	t.name = cleanName(t.name)
	return t, nil
}

// finish counts and logs an answer. It runs while an aborted answer's panic passes by.
func (s *Server) finish(x *exchange) {
	if x.status != 0 {
		s.metrics.answered(x.status)
	}
	if x.cut != "" {
		s.metrics.cuts.WithLabelValues(x.cut).Inc()
	}
	s.metrics.bytes.Add(float64(x.bytes))
	if x.first != 0 {
		s.metrics.firstByte.Observe(x.first.Seconds())
	}
	entry := s.log.Info()
	if x.status >= http.StatusInternalServerError || x.cut != "" && x.cut != "reader" {
		entry = s.log.Warn()
	}
	// The path stays out of the log: it is the key to the file.
	switch x.link.purpose {
	case purposeShort:
		entry.Int64("record", x.link.record).Uint8("key", x.link.key)
	case purposeSelfContained:
		entry.Str("media", "mxc://"+x.link.server+"/"+x.link.mediaID).Uint8("key", x.link.key)
	}
	if x.cut != "" {
		entry.Str("cut", x.cut)
	}
	if x.cause != nil {
		entry.AnErr("cause", x.cause)
	}
	entry.Str("method", x.r.Method).Int("status", x.status).Int64("bytes", x.bytes).
		Dur("took", time.Since(x.began)).Stringer("reader", x.reader).Msg("Media request")
}

// Reload reads the keys again, so that a rotation made elsewhere holds here at once.
func (s *Server) Reload(ctx context.Context) error { return s.keys.Reload(ctx) }

// Serve answers requests on l until ctx ends, then lets streams under way finish for up to ten seconds. It closes l.
// It also reads the keys again every ten seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(s.log, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	ticker := time.NewTicker(reloadEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-served:
			return fmt.Errorf("serve media on %s: %w", l.Addr(), err)
		case <-ticker.C:
			if err := s.keys.Reload(ctx); err != nil && ctx.Err() == nil {
				s.log.Error().Err(err).Msg("Cannot read the keys for media links; the ones that are known stay in use")
			}
		case <-ctx.Done():
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err := srv.Shutdown(drain)
			if err != nil {
				err = srv.Close()
			}
			<-served
			s.upstream.homeserver.CloseIdleConnections()
			s.upstream.redirect.CloseIdleConnections()
			if err != nil {
				return fmt.Errorf("stop serving media on %s: %w", l.Addr(), err)
			}
			return nil
		}
	}
}
