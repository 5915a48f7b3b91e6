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
	"sync/atomic"
	"syscall"
	"time"

	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/event"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9200", "address to listen on; port 0 takes a free one")
	token := flag.String("hs-token", "", "the token that the homeserver sends")
	mode := flag.String("mode", "async", "async: a goroutine for each event, which is mautrix-go's default; sync: one after the other")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *token, *mode); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, token, mode string) error {
	if token == "" {
		return errors.New("-hs-token is missing")
	}
	as := appservice.Create()
	as.Registration = &appservice.Registration{ID: "peer", AppToken: "as-" + token, ServerToken: token, SenderLocalpart: "peer"}
	as.HomeserverDomain = "bench.example"

	processor := appservice.NewEventProcessor(as)
	switch mode {
	case "async":
		processor.ExecMode = appservice.AsyncHandlers
	case "sync":
		processor.ExecMode = appservice.Sync
	default:
		return fmt.Errorf("-mode %q: it must be async or sync", mode)
	}
	var events atomic.Int64
	processor.On(event.EventMessage, func(context.Context, *event.Event) { events.Add(1) })
	processor.Start(ctx)
	defer processor.Stop()

	as.Router.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"events":%d}`, events.Load())
	})
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	// As mautrix-go's AppService.Start has it, but on a listener whose port is known.
	server := &http.Server{Handler: as.Router}
	go func() {
		<-ctx.Done()
		shutdown, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(shutdown)
	}()
	if err = server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
