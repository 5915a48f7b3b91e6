package proxy

import (
	"context"
	"net/http/httptest"
	"net/netip"
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
