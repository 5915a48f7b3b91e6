package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// gate limits how many requests are served at once, in all, for one reader and for one room.
type gate struct {
	places  chan struct{} // one element for each request served
	perIP   int
	perRoom int
	wait    time.Duration

	mu      sync.Mutex
	readers map[netip.Addr]int // served or waiting; an address leaves with its last request
	rooms   map[string]int     // served; a room leaves with its last request
	waiting int
}

func newGate(total, perIP, perRoom int, wait time.Duration) *gate {
	return &gate{
		places: make(chan struct{}, total), perIP: perIP, perRoom: perRoom, wait: wait,
		readers: make(map[netip.Addr]int), rooms: make(map[string]int),
	}
}

// enter takes a place, waiting for one if there is none. The caller gives it back with leave, unless enter refused. As many may wait as are
// served, so that what waits is bounded too.
func (g *gate) enter(ctx context.Context, reader netip.Addr) bool {
	g.mu.Lock()
	if g.readers[reader] >= g.perIP {
		g.mu.Unlock()
		return false
	}
	g.readers[reader]++
	select {
	case g.places <- struct{}{}:
		g.mu.Unlock()
		return true
	default:
	}
	if g.wait <= 0 || g.waiting >= cap(g.places) {
		g.forget(reader)
		g.mu.Unlock()
		return false
	}
	g.waiting++
	g.mu.Unlock()

	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	entered := false
	select {
	case g.places <- struct{}{}:
		entered = true
	case <-timer.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	if !entered {
		g.forget(reader)
	}
	return entered
}

func (g *gate) leave(reader netip.Addr) {
	<-g.places
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(reader)
}

func (g *gate) forget(reader netip.Addr) {
	if g.readers[reader]--; g.readers[reader] <= 0 {
		delete(g.readers, reader)
	}
}

// enterRoom counts a request, which has a place already, for its room. It does not wait: that would keep the place from readers of other rooms.
func (g *gate) enterRoom(room string) bool {
	if room == "" {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rooms[room] >= g.perRoom {
		return false
	}
	g.rooms[room]++
	return true
}

func (g *gate) leaveRoom(room string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rooms[room]--; g.rooms[room] <= 0 {
		delete(g.rooms, room)
	}
}

// readerOf is the address that the limits count: the peer's, or behind trusted reverse proxies the last address in X-Forwarded-For that is
// not one of theirs. What stands before it was written by the reader, and could be anything. An IPv6 reader has a whole /64.
func readerOf(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap().WithZone("")
	if within(addr, trusted) {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0; i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			addr = hop.Unmap().WithZone("")
			if !within(addr, trusted) {
				break
			}
		}
	}
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

func within(addr netip.Addr, networks []netip.Prefix) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
