//go:build failpoints

package simulation

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/pipenet"
)

// host is the machine of one process of the bridge: its doors and its connections end when the process does.
type host struct {
	pipenet.Network

	mu    sync.Mutex
	dead  bool
	parts []interface{ Close() error }
}

func (h *host) keep(part interface{ Close() error }) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		_ = part.Close()
		return false
	}
	h.parts = append(h.parts, part)
	return true
}

func (h *host) Listen(network, address string) (net.Listener, error) {
	l, err := h.Network.Listen(network, address)
	if err != nil || !h.keep(l) {
		return nil, errors.Join(err, net.ErrClosed)
	}
	return &hostListener{l, h}, nil
}

func (h *host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := h.Network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if !h.keep(c) {
		return nil, net.ErrClosed
	}
	return c, nil
}

type hostListener struct {
	net.Listener
	h *host
}

func (l *hostListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.h.keep(c)
	}
	return c, err
}

func (h *host) die() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
	for _, part := range h.parts {
		_ = part.Close()
	}
}

var step = regexp.MustCompile(`/(send|state|join|leave|invite|register|devices|profile|createRoom|versions|whoami|joined_members|members|messages|ping|capabilities|login|upload)\b`)

// disturb lets requests of the bridge to the homeserver go wrong.
func (w *world) disturb(token string) {
	w.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "Bearer "+token || w.calm.Load() {
			return false
		}
		what := "another"
		if m := step.FindAllStringSubmatch(r.URL.Path, -1); m != nil {
			what = m[len(m)-1][1]
		}
		who, _, _ := strings.Cut(r.URL.Query().Get("user_id"), ":")
		name := r.Method + " " + what + " " + who
		choice := w.about(name)
		if choice.IntN(1000) >= w.requests {
			return false
		}
		f := bridgetest.Fault{Method: r.Method, Path: regexp.MustCompile("^" + regexp.QuoteMeta(r.URL.EscapedPath()) + "$")}
		kind := choice.IntN(7)
		switch kind {
		case 0:
			f.Drop = true
		case 1:
			f.DropAfter = true
		case 2:
			f.CutAnswer = true
		case 3:
			f.Status, f.RetryAfter = http.StatusTooManyRequests, 100*time.Millisecond+upTo(choice, 10*time.Second)
			f.ErrCode = "M_LIMIT_EXCEEDED"
		case 4:
			f.Status = []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable}[choice.IntN(3)]
		case 5:
			f.Delay = upTo(choice, 30*time.Second)
		case 6:
			f.Delay, f.DropAfter = upTo(choice, 30*time.Second), true
		}
		w.note("fault %d of %s", kind, name)
		w.hs.Fault(f)
		return false
	})
}

// disturbPush lets the next transaction go wrong.
func (w *world) disturbPush() {
	choice := w.about("a transaction")
	f := bridgetest.PushFault{Path: regexp.MustCompile("^" + url.PathEscape("transactions") + "/")}
	switch choice.IntN(3) {
	case 0:
		f.CutRequest = true
	case 1:
		f.LoseAnswer = true
	case 2:
		f.Delay = upTo(choice, 20*time.Second)
	}
	w.hs.PushFault(f)
}
