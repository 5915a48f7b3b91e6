package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/trestle-bridge/trestle/appservice"
)

// gate is a handler whose events wait for POST /release: what comes in meanwhile is a backlog.
type gate struct {
	appservice.Handler
	open     chan struct{}
	openOnce sync.Once
}

func newGate(h appservice.Handler, closed bool) *gate {
	g := &gate{Handler: h, open: make(chan struct{})}
	if !closed {
		g.release()
	}
	return g
}

func (g *gate) release() { g.openOnce.Do(func() { close(g.open) }) }

// HandleEvent implements [appservice.Handler].
func (g *gate) HandleEvent(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	select {
	case <-g.open:
		return g.Handler.HandleEvent(ctx, ev)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *gate) serveRelease(w http.ResponseWriter, _ *http.Request) {
	g.release()
	answer(w, struct{}{})
}
