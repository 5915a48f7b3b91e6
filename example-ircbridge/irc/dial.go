package irc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// dial connects to the server, with TLS as configured.
func dial(ctx context.Context, config *Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, config.Reconnect.Timeout)
	defer cancel()
	dialer := &net.Dialer{KeepAlive: time.Minute}
	conn, err := dialer.DialContext(ctx, "tcp", config.Address)
	if err != nil {
		return nil, err
	}
	if !config.TLS.Enabled {
		return conn, nil
	}
	host, _, err := net.SplitHostPort(config.Address)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	settings := &tls.Config{
		ServerName: host, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: config.TLS.InsecureSkipVerify, // only on the operator's explicit wish
	}
	if config.TLS.CAFile != "" {
		if settings.RootCAs, err = certificates(config.TLS.CAFile); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	secure := tls.Client(conn, settings)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		if ctx.Err() != nil { // a server without TLS that waits for us to begin says nothing
			return nil, fmt.Errorf("%w: %w", errNoHandshake, err)
		}
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}
