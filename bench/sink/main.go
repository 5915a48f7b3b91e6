package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

type options struct {
	listen, token, db string
	workers           int
	decode, each      bool
	pprof             bool
	hold              bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:9100", "address to listen on; port 0 takes a free one")
	flag.StringVar(&o.token, "hs-token", "", "the token that the homeserver sends")
	flag.StringVar(&o.db, "db", "", "a path, sqlite:PATH or postgres://…")
	flag.IntVar(&o.workers, "workers", 0, "lanes worked on at once; 0 is the appservice's default")
	flag.BoolVar(&o.decode, "decode", false, "let the handler decode every event as a bridge does")
	flag.BoolVar(&o.each, "each", false, "write a row for every event as a bridge does, instead of one for those of a lane that share a commit")
	flag.BoolVar(&o.hold, "hold", false, "let every handler wait for POST /release")
	flag.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof/")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "sink:", err)
		os.Exit(1)
	}
}

// drainWithin bounds what SIGTERM waits for.
const drainWithin = 15 * time.Second

func run(ctx context.Context, o options) (err error) {
	if o.token == "" || o.db == "" {
		return errors.New("-hs-token and -db must be given")
	}
	log := zerolog.New(os.Stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	if !strings.HasPrefix(o.db, "sqlite:") && !strings.Contains(o.db, "://") {
		o.db = "sqlite:" + o.db
	}
	s, err := store.Open(ctx, o.db, store.Options{Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer listener.Close() // closed twice when all goes well, which harms nothing
	h := newHandler(o.decode, o.each)
	g := newGate(h, o.hold)
	metrics := prometheus.NewRegistry()
	as, err := appservice.New(appservice.Config{
		Registration: &appservice.Registration{
			ID: "sink", ASToken: "as-" + o.token, HSToken: o.token, SenderLocalpart: "sink",
			Namespaces: appservice.Namespaces{Users: []appservice.Namespace{{Exclusive: true, Regex: "@sink_.*:bench\\.example"}}},
		},
		HomeserverURL: "http://" + listener.Addr().String(), // see homeserver
		ServerName:    "bench.example",
		DeviceMode:    appservice.DeviceNone,
		Store:         s, Handler: g, Log: log, Workers: o.workers, Metrics: metrics,
	})
	if err != nil {
		return err
	}
	if err = as.Start(context.Background()); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), drainWithin)
		defer cancel()
		err = errors.Join(err, as.Stop(stopping))
	}()

	server := &http.Server{Handler: newServer(as, s, h, g, metrics, o.pprof), ReadHeaderTimeout: 10 * time.Second}
	fmt.Printf("listening on %s\n", listener.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	err = server.Shutdown(stopping)
	<-served
	return err
}
