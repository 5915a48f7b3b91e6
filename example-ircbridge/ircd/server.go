package ircd

import "errors"

// Server is a running IRC server.
type Server struct{}

// Start starts a server and returns once it listens.
func Start(opts Options) (*Server, error) { return nil, errors.New("not ready") }

// Addr is the host:port of the first TCP listener.
func (s *Server) Addr() string { return "" }

// TLSAddr is the host:port of the first TLS listener, or empty.
func (s *Server) TLSAddr() string { return "" }

// CertificatePEM is the certificate that the server made for itself, or nil.
func (s *Server) CertificatePEM() []byte { return nil }

// Close closes every link and listener, and returns when every goroutine has ended.
func (s *Server) Close() error { return nil }

// Disconnect cuts a client's link without a word, as a network failure does. It reports whether the nick was known.
func (s *Server) Disconnect(nick string) bool { return false }

// Kill closes a client's link with KILL and ERROR.
func (s *Server) Kill(nick, reason string) bool { return false }

// Hold makes the server read and log a client's lines without acting on them (hold true), or go on (false).
func (s *Server) Hold(nick string, hold bool) bool { return false }

// Inject sends one raw line to a client.
func (s *Server) Inject(nick, line string) bool { return false }

// Lines are the lines received from the clients that have or had the nick, oldest first.
func (s *Server) Lines(nick string) []string { return nil }

// Nicks are the registered clients.
func (s *Server) Nicks() []string { return nil }

// Members are the nicks in a channel.
func (s *Server) Members(channel string) []string { return nil }

// Topic is a channel's topic.
func (s *Server) Topic(channel string) string { return "" }
