package bridge

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
)

// proxyCommand answers media links beside the bridge, from the same configuration and database. It takes nothing over, keeps nothing that
// another process needs, and any number of it may run.
func (p *program) proxyCommand(f *flag.FlagSet) func() int {
	listen := f.String("listen", "", "`HOST:PORT` to listen on, instead of media.listen, which may be the bridge's own")
	cache := f.String("cache", "", "`FOLDER` of the cache, instead of media.cache; no two processes can have the same")
	metrics := f.String("metrics", "", "`HOST:PORT` for Prometheus; metrics.listen is the bridge's")
	return func() int {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)

		cfg, status := p.load()
		if cfg == nil {
			return status
		}
		cfg.Media.Listen, cfg.Media.Cache, cfg.Metrics.Listen = cmp.Or(*listen, cfg.Media.Listen), cmp.Or(*cache, cfg.Media.Cache), *metrics
		if cfg.Media.Listen == "" {
			return p.wrong("write where to listen: proxy -listen 127.0.0.1:29401, or media.listen in the configuration")
		}
		registration, err := appservice.LoadRegistration(cfg.Appservice.Registration)
		if err != nil {
			fmt.Fprintln(p.stderr, err)
			return exitWrong
		}
		log, closeLog, err := openLog(&cfg.Log, p.stderr)
		if err != nil {
			fmt.Fprintln(p.stderr, "opening the log:", err)
			return exitFailed
		}
		defer closeLog()
		return runUntilSignal(&mediaProxy{cfg: cfg, token: registration.ASToken, log: log}, signals, log)
	}
}

// mediaProxy is the process of [program.proxyCommand].
type mediaProxy struct {
	cfg   *Config
	token string
	log   zerolog.Logger
}

// Run answers links until ctx ends.
func (m *mediaProxy) Run(ctx context.Context) (err error) {
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	v, err := openBeside(opening, m.cfg)
	if err != nil {
		return errors.New(withoutPassword(err.Error(), m.cfg.Database))
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	listener, err := net.Listen("tcp", m.cfg.Media.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listening for media links: %w; name an address with -listen that neither a running bridge nor another proxy has", err)
	} else if err != nil {
		return fmt.Errorf("listening for media links: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server, err := newProxy(m.cfg, m.token, v, nil, m.log, registry, nil)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watched, err := m.watch(ctx, registry)
	if err != nil {
		return errors.Join(err, listener.Close(), server.Close())
	}
	m.log.Info().Stringer("address", listener.Addr()).Msg("Listening for media links")
	err = server.Serve(ctx, listener)
	stop()
	<-watched
	return err
}

// watch serves the metrics until ctx ends; done is closed then.
func (m *mediaProxy) watch(ctx context.Context, registry *prometheus.Registry) (done <-chan struct{}, err error) {
	ended := make(chan struct{})
	if m.cfg.Metrics.Listen == "" {
		close(ended)
		return ended, nil
	}
	listener, err := net.Listen("tcp", m.cfg.Metrics.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for Prometheus: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := watchServer(mux, m.log)
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error().Err(err).Msg("The metrics cannot be served any more")
		}
	}()
	return ended, nil
}
