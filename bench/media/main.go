package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

type options struct {
	listen     string
	upstream   bool
	homeserver string
	db         string
	links      string
	cache      string
	files      string
	profile    string
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "host and port to listen on")
	flag.BoolVar(&o.upstream, "upstream", false, "be what the media is fetched from")
	flag.StringVar(&o.homeserver, "homeserver", "", "address of the upstream")
	flag.StringVar(&o.db, "db", "", "file of the database")
	flag.StringVar(&o.links, "links", "", "file that the paths of the links are written to, by file, as JSON")
	flag.StringVar(&o.cache, "cache", "", "folder of the cache; empty: there is none")
	flag.StringVar(&o.files, "files", "", "files that links are made to, with commas between them, such as n4096,e4096")
	flag.StringVar(&o.profile, "profile", "", "file that a CPU profile is written to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "media:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) error {
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	if o.upstream {
		return serveUpstream(ctx, listener)
	}
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err = pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	st, err := store.Open(ctx, "sqlite:"+o.db, store.Options{Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	return errors.Join(serveProxy(ctx, o, listener, st), st.Close())
}

// serveProxy answers as a bridge's proxy does, but that nobody is told to come back later: one reader is all the load.
func serveProxy(ctx context.Context, o *options, listener net.Listener, st *store.Store) error {
	signer, err := proxy.NewSigner(ctx, proxy.SignerConfig{
		PublicURL: "http://" + listener.Addr().String(), Store: st, Decrypter: crypto.Attachments{},
	})
	if err != nil {
		return err
	}
	if err = writeLinks(ctx, o, signer); err != nil {
		return fmt.Errorf("write the links: %w", err)
	}
	debug.FreeOSMemory() // what the keys of encrypted files took is not the proxy's
	unlimited := proxy.Rate{Requests: -1, Bytes: -1}
	server, err := proxy.NewServer(proxy.ServerConfig{
		HomeserverURL: o.homeserver, Token: "bench-token", Store: st, Keys: signer.Keys(), Decrypter: crypto.Attachments{},
		MaxSize: 4 << 30, Streams: 256, StreamsPerIP: 256, StreamsPerRoom: 256,
		Rates:    proxy.Rates{Reader: unlimited, Room: unlimited, Media: unlimited, All: unlimited},
		CacheDir: o.cache, CacheSize: 8 << 30, Log: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	return server.Serve(ctx, listener)
}

func writeLinks(ctx context.Context, o *options, signer *proxy.Signer) error {
	links := make(map[string]string)
	for name := range strings.SplitSeq(o.files, ",") {
		size, encrypted, err := parseName(name)
		if err != nil {
			return err
		}
		m := proxy.Media{
			URI: id.ContentURI{Homeserver: server, FileID: name}, Name: "photo.png", MIME: "image/png", Room: "!room:bench", Event: id.EventID("$" + name),
		}
		if encrypted {
			// Shown pictures are verified as a whole before anything is sent; a download begins at once.
			m.Name, m.MIME, m.Encrypted = "film.bin", "application/octet-stream", keysOf(size)
		}
		link, err := signer.Short(ctx, m)
		if err != nil {
			return err
		}
		u, err := url.Parse(link)
		if err != nil {
			return err
		}
		links[name] = u.Path
	}
	text, err := json.Marshal(links)
	if err != nil {
		return err
	}
	return os.WriteFile(o.links, text, 0o600)
}

func serveUntil(ctx context.Context, listener net.Listener, handler http.Handler) error {
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	fmt.Println("listening on", listener.Addr())
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
