package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/internal/pipenet"
	"github.com/trestle-bridge/trestle/proxy"
)

// listeners are the bridge's doors: one for the homeserver, one for the public, one for health and metrics. They are opened
// before anything else, so that an address in use is the first thing that is found out, and served last.
type listeners struct {
	appservice, media, watch net.Listener
	proxy                    *proxy.Server
	metrics                  *prometheus.Registry

	servers []*http.Server
	serving sync.WaitGroup
	fail    func(error)
	stop    context.CancelFunc
}

func (b *Bridge) listen(ctx context.Context) (*listeners, error) {
	network, _ := pipenet.From(ctx)
	l := &listeners{metrics: prometheus.NewRegistry(), fail: b.fail, stop: func() {}}
	l.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, door := range []struct {
		to      *net.Listener
		address string
		setting string
	}{
		{&l.appservice, b.cfg.Appservice.Listen, "appservice.listen"},
		{&l.media, b.cfg.Media.Listen, "media.listen"},
		{&l.watch, b.cfg.Metrics.Listen, "metrics.listen"},
	} {
		if door.address == "" {
			continue
		}
		listener, err := network.Listen("tcp", door.address)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("%s: %w", door.setting, err)
		}
		*door.to = listener
	}
	return l, nil
}

// homeserverClient is nil, which is a tuned client, but in a network within the process.
func homeserverClient(ctx context.Context) *http.Client {
	network, own := pipenet.From(ctx)
	if !own {
		return nil
	}
	return &http.Client{Transport: &http.Transport{DialContext: network.DialContext, MaxIdleConnsPerHost: 64, ResponseHeaderTimeout: 3 * time.Minute}}
}

// buildProxy makes the signer and the public server, if the configuration has them.
func (b *Bridge) buildProxy(ctx context.Context, token string, l *listeners) (err error) {
	if b.cfg.Media.PublicURL == "" && l.media == nil {
		return nil
	}
	if b.signer, err = newSigner(ctx, &b.cfg.Media, b.store); err != nil || l.media == nil {
		return err
	}
	l.proxy, err = newProxy(b.cfg, token, b.store, b.signer.Keys(), b.log, l.metrics, homeserverClient(ctx))
	return err
}

func newSigner(ctx context.Context, cfg *MediaConfig, links proxy.Links) (*proxy.Signer, error) {
	lifetime := cfg.Lifetime
	if lifetime == 0 {
		lifetime = -1 // for ever
	}
	return proxy.NewSigner(ctx, proxy.SignerConfig{PublicURL: cfg.PublicURL, Store: links, Lifetime: lifetime, Decrypter: crypto.Attachments{}})
}

// newProxy makes the public server. Without keys it opens the ring itself.
func newProxy(cfg *Config, token string, links proxy.Links, keys *proxy.KeyRing, log zerolog.Logger, metrics prometheus.Registerer, client *http.Client) (*proxy.Server, error) {
	return proxy.NewServer(proxy.ServerConfig{
		HTTPClient:    client,
		HomeserverURL: cfg.Homeserver.Address, Token: token, PublicURL: cfg.Media.PublicURL, Store: links, Keys: keys, Decrypter: crypto.Attachments{},
		MaxSize: int64(cfg.Media.MaxSize), TrustedProxies: cfg.Media.TrustedProxies,
		CacheDir: cfg.Media.Cache, CacheSize: int64(cfg.Media.CacheSize), CacheAge: cfg.Media.CacheAge, Log: log, Metrics: metrics,
		Streams: cfg.Media.Limits.Streams, StreamsPerIP: cfg.Media.Limits.StreamsPerReader, StreamsPerRoom: cfg.Media.Limits.StreamsPerRoom,
		Rates: cfg.Media.Limits.rates(),
	})
}

// serveWatch begins before the bridge is ready, so that one can see what it waits for.
func (l *listeners) serveWatch(b *Bridge) {
	if l.watch == nil {
		return
	}
	mux := http.NewServeMux()
	// What cannot be read is left out; the rest is worth having all the more then.
	mux.Handle("GET /metrics", promhttp.HandlerFor(l.metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	b.serveHealth(mux)
	l.http(l.watch, watchServer(mux, b.log))
	b.log.Info().Stringer("address", l.watch.Addr()).Msg("Listening for health and metrics")
}

func (l *listeners) serve(b *Bridge) {
	if l.appservice != nil {
		l.http(l.appservice, homeserverServer(b.as, b.cfg.Appservice.Hold, b.log))
		b.log.Info().Stringer("address", l.appservice.Addr()).Msg("Listening for the homeserver")
	}
	if l.media != nil {
		ctx, stop := context.WithCancel(b.running)
		l.stop = stop
		l.serving.Add(1)
		go func() {
			defer l.serving.Done()
			if err := l.proxy.Serve(ctx, l.media); err != nil && ctx.Err() == nil {
				l.fail(fmt.Errorf("serving media: %w", err))
			}
		}()
		b.log.Info().Stringer("address", l.media.Addr()).Msg("Listening for media links")
	}
}

func (l *listeners) http(listener net.Listener, server *http.Server) {
	l.servers = append(l.servers, server)
	l.serving.Add(1)
	go func() {
		defer l.serving.Done()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			l.fail(fmt.Errorf("serving on %s: %w", listener.Addr(), err))
		}
	}()
}

// shutdown takes no new request and waits for those under way.
func (l *listeners) shutdown(ctx context.Context) (err error) {
	l.stop()
	for _, server := range l.servers {
		if shut := server.Shutdown(ctx); shut != nil {
			err = errors.Join(err, shut, server.Close())
		}
	}
	l.serving.Wait()
	return err
}

func (l *listeners) close() {
	if l.proxy != nil {
		_ = l.proxy.Close() // closed already after a shutdown
	}
	for _, listener := range []net.Listener{l.appservice, l.media, l.watch} {
		if listener != nil {
			listener.Close() // closed already after a shutdown
		}
	}
}
