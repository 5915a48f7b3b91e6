package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// waitingPerPlace is how many requests of one reader may wait for each of its places: a browser asks for all the pictures of a page at once, behind
// a reverse proxy that speaks HTTP/2 a hundred and more, and shows those that were refused as broken.
const waitingPerPlace = 16

// gate limits how many requests are served at once, in all, for one reader and for one room.
type gate struct {
	places  chan struct{} // one element for each request served
	perIP   int
	perRoom int
	wait    time.Duration

	mu      sync.Mutex
	readers map[netip.Addr]*share // an address leaves with its last request
	rooms   map[string]int        // served; a room leaves with its last request
	waiting int                   // for a place among all

	crowded atomic.Pointer[time.Time] // when a request last found no place among all; by the clock that never jumps
}

// share is what one reader has of the gate.
type share struct {
	places   chan struct{} // one element for each request that has one of the reader's places
	requests int           // with a place or waiting
}

func newGate(total, perIP, perRoom int, wait time.Duration) *gate {
	return &gate{
		places: make(chan struct{}, total), perIP: perIP, perRoom: perRoom, wait: wait,
		readers: make(map[netip.Addr]*share), rooms: make(map[string]int),
	}
}

// enter takes one of the reader's places, and then one of those that all share, waiting where there is none. The caller gives both back with leave, unless
// enter refused. What waits is bounded too: waitingPerPlace for one reader, and in all as many as are served.
func (g *gate) enter(ctx context.Context, reader netip.Addr) bool {
	g.mu.Lock()
	own := g.readers[reader]
	if own == nil {
		own = &share{places: make(chan struct{}, g.perIP)}
		g.readers[reader] = own
	}
	if own.requests >= g.perIP*(1+waitingPerPlace) {
		g.mu.Unlock()
		return false
	}
	own.requests++
	g.mu.Unlock()

	if takeNow(own.places) {
		if takeNow(g.places) {
			return true
		}
		g.isFull()
		<-own.places
	}
	ctx, cancel := context.WithTimeout(ctx, g.wait)
	defer cancel()
	if take(ctx, own.places) {
		if g.enterAll(ctx) {
			return true
		}
		<-own.places
	}
	g.forget(reader)
	return false
}

// enterAll takes one of the places that all share.
func (g *gate) enterAll(ctx context.Context) bool {
	if takeNow(g.places) {
		return true
	}
	g.isFull()
	g.mu.Lock()
	full := g.waiting >= cap(g.places)
	if !full {
		g.waiting++
	}
	g.mu.Unlock()
	if full {
		return false
	}
	entered := take(ctx, g.places)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	return entered
}

func (g *gate) isFull() {
	now := time.Now()
	g.crowded.Store(&now)
}

// isCrowded tells whether somebody found no place among all within the last d.
func (g *gate) isCrowded(d time.Duration) bool {
	at := g.crowded.Load()
	return at != nil && time.Since(*at) < d
}

func takeNow(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

// take takes a place when there is one.
func take(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *gate) leave(reader netip.Addr) {
	<-g.places
	g.mu.Lock()
	own := g.readers[reader]
	g.mu.Unlock()
	<-own.places
	g.forget(reader)
}

func (g *gate) forget(reader netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	own := g.readers[reader]
	if own.requests--; own.requests == 0 {
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
	addr := peerOf(r.RemoteAddr)
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
	return networkOf(addr)
}

// peerOf is the address of a connection's other end; the zero value when it has none.
func peerOf(address string) netip.Addr {
	peer, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

// networkOf is what is counted for an address: itself, or with IPv6 its /64.
func networkOf(addr netip.Addr) netip.Addr {
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
