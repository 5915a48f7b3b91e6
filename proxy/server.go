package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

// Server answers media links. It is an http.Handler; see [Server.Serve] for a listener with the right time limits.
type Server struct {
	keys        *KeyRing
	links       Links // nil: self-contained links only
	revoked     func(ctx context.Context, room id.RoomID, event id.EventID) (bool, error)
	upstream    *upstream
	decrypter   Decrypter
	cache       *cache
	gate        *gate
	meters      *meters
	bad         badMedia
	memo        memo
	verifyFirst int64  // maxVerifyFirst
	public      string // PublicURL without a slash at its end; "": not known

	liveMu sync.Mutex
	live   map[*exchange]*stream // what is being sent
	cuts   atomic.Uint64         // revocations that were carried out

	watching     context.Context // ends when the watcher does
	stopWatching context.CancelFunc
	watcher      sync.WaitGroup
	awaiting     atomic.Int32 // requests that wait for a key
	metrics      *metrics
	log          zerolog.Logger
	trusted      []netip.Prefix
	stall        time.Duration
	total        time.Duration
	now          func() time.Time
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
	if cfg.MaxSize < 0 || cfg.Streams < 0 || cfg.StreamsPerIP < 0 || cfg.StreamsPerRoom < 0 || cfg.CacheSize < 0 || cfg.CacheAge < 0 || cfg.FirstByte < 0 || cfg.Stall < 0 || cfg.Total < 0 {
		return nil, errors.New("the limits of the media proxy may not be negative")
	}
	public := ""
	if cfg.PublicURL != "" {
		if public, err = publicBase(cfg.PublicURL); err != nil {
			return nil, err
		}
	}
	transport := homeserverTransport(cfg.HTTPClient)
	s := &Server{
		keys:        cfg.Keys,
		revoked:     cfg.Revoked,
		gate:        newGate(or(cfg.Streams, 64), or(cfg.StreamsPerIP, 8), or(cfg.StreamsPerRoom, 32), or(cfg.QueueWait, 10*time.Second)),
		meters:      newMeters(cfg.Rates, cfg.Now),
		decrypter:   cfg.Decrypter,
		verifyFirst: maxVerifyFirst,
		public:      public,
		log:         cfg.Log,
		trusted:     cfg.TrustedProxies,
		stall:       or(cfg.Stall, 30*time.Second),
		total:       or(cfg.Total, time.Hour),
		now:         cfg.Now,
	}
	if cfg.Store != nil {
		s.links = cfg.Store
		if own, ok := cfg.Store.(remembers); ok {
			s.memo.made = func() uint64 { return own.MediaRevocationsMade() + s.cuts.Load() }
		}
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
	s.cache, err = openCache(cfg.CacheDir, or(cfg.CacheSize, 1<<30), s.upstream.maxSize, or(cfg.CacheAge, 7*24*time.Hour), s.total, cfg.Now, cfg.Log, s.metrics)
	if err != nil {
		return nil, err
	}
	s.live = make(map[*exchange]*stream)
	s.startWatching()
	return s, nil
}

// ServeHTTP answers one request. A path that is no link's is 404, whatever the method.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, conn: connOf(r), reader: readerOf(r, s.trusted), began: time.Now(), stall: s.stall}
	x.control = http.NewResponseController(w)
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
	if !s.keys.knows(c.key) {
		s.awaitKey(x.r.Context(), c.key)
	}
	if !s.keys.verify(&c, m) {
		s.metrics.macFailures.Inc()
		x.refuse(http.StatusNotFound, nil)
		return
	}
	x.link = c
	if wait, limit := s.meters.admit(x); wait > 0 {
		s.limit(x, limit, wait)
		return
	}
	if !s.gate.enter(x.r.Context(), x.reader) {
		s.limit(x, "places", 0)
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
	x.cuts = s.cuts.Load()
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
	if wait, limit := s.meters.admitTo(t); wait > 0 {
		s.limit(x, limit, wait)
		return
	}
	if !s.gate.enterRoom(t.room) {
		s.limit(x, "room_places", 0)
		return
	}
	defer s.gate.leaveRoom(t.room)
	if t.page {
		s.servePage(ctx, x, t)
		return
	}
	s.serve(ctx, x, t)
}

// limit answers 429. wait is how long until there is room; 0: nobody knows.
func (s *Server) limit(x *exchange, limit string, wait time.Duration) {
	s.metrics.limited.WithLabelValues(limit).Inc()
	x.wait = wait
	x.refuse(http.StatusTooManyRequests, nil)
}

// finish counts and logs an answer. It runs while an aborted answer's panic passes by.
func (s *Server) finish(x *exchange) {
	_ = x.release() // net/http fails at what comes after
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
	switch c := &x.link; c.purpose {
	case "":
	case purposeSelfContained:
		entry.Str("media", "mxc://"+c.server+"/"+c.mediaID).Uint8("key", c.key)
	default:
		entry.Int64("record", c.record).Uint8("key", c.key)
		if z := c.purpose.thumbnail(); z != nil {
			entry.Str("thumbnail", z.segment)
		}
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
