package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// Health is for whoever watches the bridge from outside. /healthz says whether the process is worth keeping: it fails only
// when nothing but a restart helps. /readyz says whether everything works that the bridge can tell of, and if not, what to
// do about it. A homeserver without ping is tolerated, and so is a network that is known to be away, since what is for it
// waits in the store.

// healthCheck is one thing that /healthz or /readyz looks at.
type healthCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// healthReport is the body of an answer.
type healthReport struct {
	OK     bool          `json:"ok"`
	Checks []healthCheck `json:"checks"`
}

const (
	// writtenRecently is how old a commit may be that still shows that the store can be written to.
	writtenRecently = 30 * time.Second
	healthKey       = "bridge.health"
)

// serveHealth adds the endpoints. They answer from before the bridge is ready until it has stopped.
func (b *Bridge) serveHealth(mux *http.ServeMux) {
	report := func(checks func(ctx context.Context) []healthCheck) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body := healthReport{OK: true, Checks: checks(r.Context())}
			for _, c := range body.Checks {
				body.OK = body.OK && c.OK
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			if !body.OK {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			_ = encoder.Encode(body)
		}
	}
	mux.Handle("GET /healthz", report(func(context.Context) []healthCheck { return []healthCheck{b.checkHeld()} }))
	mux.Handle("GET /readyz", report(b.readiness))
}

func (b *Bridge) readiness(ctx context.Context) []healthCheck {
	return []healthCheck{b.checkRunning(), b.checkStore(ctx), b.checkBacklog(), b.checkReached(), b.checkSession()}
}

// checkRunning says whether the bridge is between its start and its end.
func (b *Bridge) checkRunning() healthCheck {
	c := healthCheck{Name: "running"}
	select {
	case <-b.ready:
		if c.OK = !b.draining.Load(); c.OK {
			c.Detail = "since " + b.started.UTC().Format(time.RFC3339)
		} else {
			c.Detail = "it is stopping"
		}
	default:
		c.Detail = "it is starting"
		c.Mend = "wait; if it stays so, the log says what it waits for: the homeserver, or the network"
	}
	return c
}

// checkHeld says whether the store is this process's.
func (b *Bridge) checkHeld() healthCheck {
	c := healthCheck{Name: "store", OK: true, Detail: "it is this process's"}
	select {
	case <-b.as.Lost():
		c.OK, c.Detail = false, "it is lost for this process: "+withoutPassword(b.as.Ready().Error(), b.cfg.Database)
		c.Mend = "start the bridge again, and only once"
	default:
	}
	return c
}

// checkStore says whether the store can be written to: something was lately, or it is tried.
func (b *Bridge) checkStore(ctx context.Context) healthCheck {
	c := b.checkHeld()
	if !c.OK {
		return c
	}
	last := b.store.LastCommit()
	if b.now().Sub(last) > writtenRecently {
		if err := b.writeTest.run(ctx, b.goroutine, b.writeNow); err != nil {
			c.OK, c.Detail = false, "it cannot be written to: "+withoutPassword(err.Error(), b.cfg.Database)
			c.Mend = "look whether the disk is full, and whether the database is there; the bridge goes on by itself"
			return c
		}
		last = b.now()
	}
	c.Detail = "written to at " + last.UTC().Format(time.RFC3339)
	return c
}

func (b *Bridge) writeNow() error {
	return b.store.Commit(b.running, b.store.Epoch(), func(tx *store.Tx) error {
		return tx.PutSetting(healthKey, []byte(time.Now().UTC().Format(time.RFC3339)))
	})
}

// checkBacklog says whether transactions are taken in, or held back because too much waits already.
func (b *Bridge) checkBacklog() healthCheck {
	waiting, limit := b.as.Backlog()
	c := healthCheck{Name: "backlog", OK: waiting < limit, Detail: fmt.Sprintf("%d events wait, of at most %d", waiting, limit)}
	if !c.OK {
		c.Mend = "look in the log for what the events wait for (a network that is away, or an error), or raise appservice.backlog_limit; the homeserver keeps its events until then"
	}
	return c
}

// checkReached says whether the homeserver reaches the bridge, as far as its answer to the ping at the start tells.
func (b *Bridge) checkReached() healthCheck {
	c := healthCheck{Name: "homeserver", OK: true, Detail: "it reaches the bridge"}
	switch err := b.as.Reached(); {
	case err == nil:
	case errors.Is(err, appservice.ErrPingUnsupported):
		c.Detail = "it has no ping; whether it reaches the bridge shows with the first event"
	default:
		c.OK, c.Detail = false, err.Error()
		c.Mend = "see what the subcommand check says; the bridge pings again by itself"
	}
	return c
}

// checkSession says whether there is a session, and tolerates that it is offline.
func (b *Bridge) checkSession() healthCheck {
	c := healthCheck{Name: "network", OK: true, Detail: "the session is open"}
	switch since := b.offlineSince(); {
	case b.sessions.Load() == nil:
		c.OK, c.Detail = false, "the session is not open yet"
	case !since.IsZero():
		c.Detail = "offline, or not in a channel, since " + since.UTC().Format(time.RFC3339) + "; messages for it wait in the store"
	}
	return c
}
