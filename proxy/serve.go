package proxy

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"time"
)

// Reload reads the keys again, so that a rotation made elsewhere holds here at once.
func (s *Server) Reload(ctx context.Context) error { return s.keys.Reload(ctx) }

// Close ends what goes on in the background: the look for revocations and keys, and fetches for the cache. Requests under way are not waited for, and
// later ones fetch for themselves. [Server.Serve] does it at its end.
func (s *Server) Close() error {
	s.stopWatching()
	s.watcher.Wait()
	return s.cache.close()
}

// Serve answers requests on l until ctx ends, then lets streams under way finish for up to ten seconds. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      s.stall, // of what net/http answers by itself; every other answer sets its own
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(s.log, "", 0),
		ConnContext:       withConn,

		DisableGeneralOptionsHandler: true, // "OPTIONS *" is no link
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(newListener(l, s.trusted)) }()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve media on %s: %w", l.Addr(), err), s.Close())
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
		if err = errors.Join(err, s.Close()); err != nil {
			return fmt.Errorf("stop serving media on %s: %w", l.Addr(), err)
		}
		return nil
	}
}
