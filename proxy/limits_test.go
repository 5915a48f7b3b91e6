package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestProxy19_Limits_OneReaderOverItsShare_Is429AndOthersAreServed(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.StreamsPerIP = 2; c.Streams = 3 })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2") // httptest's reader is 192.0.2.1
	ctx := t.Context()
	for range 2 {
		if !s.server.gate.enter(ctx, a) {
			t.Fatal("refused within the limit")
		}
	}
	link := s.link(photo())
	resp := s.get(link)
	wantStatus(t, resp, 429)
	wantHeader(t, resp, "Retry-After", "5")
	if len(s.hs.requests()) != 0 {
		t.Error("the homeserver was asked")
	}
	if !s.server.gate.enter(ctx, b) {
		t.Error("another reader was refused")
	}
	s.server.gate.leave(a)
	wantStatus(t, s.get(link), 200)
	if !s.server.gate.enter(ctx, b) {
		t.Error("the place was not given back")
	}
	wantStatus(t, s.get(link), 429) // three are served in all
	for _, who := range []netip.Addr{a, b, b} {
		s.server.gate.leave(who)
	}
	if len(s.server.gate.readers) != 0 || len(s.server.gate.places) != 0 {
		t.Error("the gate remembers readers who have gone")
	}
}

func TestProxy19_Limits_WaitingRequest_GetsThePlaceThatBecomesFree(t *testing.T) {
	g := newGate(1, 5, 5, time.Minute)
	who := netip.MustParseAddr("192.0.2.1")
	g.enter(t.Context(), who)
	entered := make(chan bool)
	go func() { entered <- g.enter(t.Context(), who) }()
	g.leave(who)
	if !<-entered {
		t.Error("refused")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if g.enter(ended, who) {
		t.Error("a reader who has gone was let in")
	}
	g.leave(who)
	if len(g.readers) != 0 || g.waiting != 0 {
		t.Errorf("%d readers, %d waiting", len(g.readers), g.waiting)
	}
}

func TestProxy19_Gallery_OpenedAllAtOnce_ShowsEachPicture(t *testing.T) {
	const pictures = 100 // streams that HTTP/2 has
	var atOnce, most atomic.Int32
	s := newStoredStage(t, func(c *ServerConfig) { c.QueueWait = time.Minute; c.Rates = Rates{} })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		for n := atOnce.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(time.Millisecond)
		atOnce.Add(-1)
		s.hs.answer(w, r)
	})
	p := longText()
	for i := range pictures {
		name := fmt.Sprint("p", i)
		s.hs.put(name+" 320x240", "image/png", string(png))
		p.Files = append(p.Files, mediaOf(name, "image/png", "a.png"))
	}
	small := regexp.MustCompile(`src="\.\./(t320/[^"]+)"`).FindAllStringSubmatch(bodyOf(t, s.get(s.page(p), "Accept", browser)), -1)
	if len(small) != pictures {
		t.Fatalf("%d pictures", len(small))
	}
	var readers sync.WaitGroup
	for _, link := range small {
		readers.Go(func() { wantStatus(t, s.get("/m/"+link[1]), 200) })
	}
	readers.Wait()
	if n := most.Load(); n > 8 {
		t.Errorf("%d were served at once", n)
	}
	if g := s.server.gate; len(g.readers) != 0 || len(g.places) != 0 || g.waiting != 0 {
		t.Error("the gate remembers readers who have gone")
	}
}

func TestProxy19_Reader_WithMoreRequestsThanMayWait_Is429(t *testing.T) {
	g := newGate(100, 1, 1, time.Minute)
	who, ctx := netip.MustParseAddr("192.0.2.1"), t.Context()
	g.enter(ctx, who)
	var waiting sync.WaitGroup
	for range waitingPerPlace {
		waiting.Go(func() {
			if g.enter(ctx, who) {
				g.leave(who)
			}
		})
	}
	for full := false; !full; runtime.Gosched() {
		g.mu.Lock()
		full = g.readers[who].requests == 1+waitingPerPlace
		g.mu.Unlock()
	}
	if g.enter(ctx, who) {
		t.Error("let in")
	}
	if !g.enter(ctx, netip.MustParseAddr("192.0.2.2")) {
		t.Error("another reader was refused")
	}
	g.leave(who)
	waiting.Wait()
}

func TestProxy19_Reader_BehindTrustedProxies_IsTheLastAddressThatIsNotTheirs(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"198.51.100.1:5", "", "198.51.100.1"},
		{"198.51.100.1:5", "1.1.1.1", "198.51.100.1"},
		{"10.0.0.1:5", "1.1.1.1", "1.1.1.1"},
		{"10.0.0.1:5", "9.9.9.9, 1.1.1.1, 10.0.0.2", "1.1.1.1"},
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "9.9.9.9, nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "", "10.0.0.1"},
		{"[2001:db8:1:2:3::4]:5", "", "2001:db8:1:2::"},
		{"[::ffff:198.51.100.1]:5", "", "198.51.100.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := readerOf(r, trusted).String(); got != c.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}
