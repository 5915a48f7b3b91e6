package ircd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// Server is a running IRC server. Its methods may be called from several goroutines.
type Server struct {
	opts    Options
	mapping casemap.Mapping
	started time.Time
	addr    string
	tlsAddr string
	pem     []byte

	listeners []net.Listener
	running   sync.WaitGroup

	mu       sync.Mutex // guards everything below, and all clients and channels
	closed   bool
	caps     []string           // on offer
	links    map[*client]bool   // every link that is open, registered or not
	clients  map[string]*client // registered or not, by folded nick
	channels map[string]*channel
	past     []*client // the last clients that are gone, for Lines
	lastID   uint64
	history  map[string][]past // by folded channel
	recent   []written         // messages to channels, of which their authors may take back
}

// Start starts a server and returns once it listens.
func Start(opts Options) (*Server, error) {
	opts.fill()
	s := &Server{
		opts:     opts,
		mapping:  casemap.Of(opts.CaseMapping),
		started:  time.Now(),
		caps:     opts.Capabilities,
		links:    map[*client]bool{},
		clients:  map[string]*client{},
		channels: map[string]*channel{},
		history:  map[string][]past{},
	}
	if err := s.listen(); err != nil {
		for _, l := range s.listeners {
			_ = l.Close()
		}
		return nil, err
	}
	for _, l := range s.listeners {
		s.running.Go(func() { s.accept(l) })
	}
	return s, nil
}

func (s *Server) listen() error {
	for _, address := range s.opts.Listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listening for IRC: %w", err)
		}
		s.listeners = append(s.listeners, l)
		if s.addr == "" {
			s.addr = l.Addr().String()
		}
	}
	if len(s.opts.ListenTLS) == 0 {
		return nil
	}
	config := s.opts.TLS
	if config == nil {
		certificate, pem, err := selfSigned(s.opts.Name)
		if err != nil {
			return fmt.Errorf("making a certificate for %s: %w", s.opts.Name, err)
		}
		config, s.pem = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, pem
	}
	for _, address := range s.opts.ListenTLS {
		l, err := tls.Listen("tcp", address, config)
		if err != nil {
			return fmt.Errorf("listening for IRC with TLS: %w", err)
		}
		s.listeners = append(s.listeners, l)
		if s.tlsAddr == "" {
			s.tlsAddr = l.Addr().String()
		}
	}
	return nil
}

func (s *Server) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, or a client gone before it was taken: neither ends the server.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.Serve(conn)
	}
}

// Serve takes a client that comes by itself, not through a listener: the other end of a [net.Pipe], say. It returns at
// once. A server that is closed closes the connection.
func (s *Server) Serve(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return
	}
	c := newClient(s, conn)
	s.links[c] = true
	s.running.Go(c.read)
}

// Addr is the host:port of the first TCP listener, or empty.
func (s *Server) Addr() string { return s.addr }

// TLSAddr is the host:port of the first TLS listener, or empty.
func (s *Server) TLSAddr() string { return s.tlsAddr }

// CertificatePEM is the certificate that the server made for itself, or nil. It names 127.0.0.1, ::1, localhost and the
// server.
func (s *Server) CertificatePEM() []byte { return slices.Clone(s.pem) }

// Close closes every link and listener, and returns when every goroutine has ended.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.links {
		_ = c.conn.Close()
	}
	s.mu.Unlock()
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.running.Wait()
	return errors.Join(errs...)
}

// nextID makes a message ID. Within one server it is unique, and across restarts as unique as the clock.
func (s *Server) nextID() string {
	s.lastID++
	return strconv.FormatInt(s.started.UnixNano(), 36) + "-" + strconv.FormatUint(s.lastID, 36)
}

func (s *Server) offers(name string) bool { return slices.Contains(s.caps, name) }
