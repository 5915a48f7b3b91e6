package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve puts the server on a listener of its own, as a bridge does, and returns its address.
func (s *stage) serve() string {
	s.tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(ctx, l) }()
	s.tb.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			s.tb.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// pattern is bytes of a PNG of which no two pieces are alike.
func pattern(size int) string {
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:size]
}

func TestServe_AnswersOfEverySize_AreTheFileOnOneConnection(t *testing.T) {
	for name, change := range map[string][]func(*ServerConfig){"with a cache": {cached(t)}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			s := newStoredStage(t, change...)
			conn, in := dial(t, s.serve())
			ask := func(method, link, header string, status int, want string) {
				t.Helper()
				if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, link, header); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(in, &http.Request{Method: method})
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != status || status < 300 && string(got) != want {
					t.Fatalf("%s %s: %d, %d bytes of %d: %v", method, header, resp.StatusCode, len(got), len(want), err)
				}
			}
			for _, size := range []int{8, 600, 3000, 4096, 16 << 10, 64 << 10, 64<<10 + 1, 300 << 10, 3<<20 + 17} {
				id := fmt.Sprint("size", size)
				body := pattern(size)
				s.hs.put(id, "image/png", body)
				link := s.link(mediaOf(id, "image/png", "photo.png"))
				for range 2 { // fetched, and from the cache
					ask("GET", link, "", 200, body)
					settled(s.server.cache)
				}
				ask("HEAD", link, "", 200, "")
				ask("GET", link, "Range: bytes=5-\r\n", 206, body[5:])
				ask("GET", link, "Range: bytes=2-3\r\n", 206, body[2:4])
				ask("GET", link, "Range: bytes=9999999-\r\n", 416, "")
			}
			ask("GET", "/m/none", "", 404, "")
			ask("OPTIONS", "/m/none", "", 204, "")
		})
	}
}

func TestServe_RequestsSentAtOnce_AreAnsweredInOrder(t *testing.T) {
	s := newStoredStage(t, cached(t))
	var links []string
	for i := range 20 {
		id := fmt.Sprint("file", i)
		s.hs.put(id, "image/png", pattern(100+5000*i))
		links = append(links, s.link(mediaOf(id, "image/png", "")))
	}
	conn, in := dial(t, s.serve())
	for _, link := range links {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", link)
	}
	for i := range links {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != pattern(100+5000*i) {
			t.Fatalf("answer %d: %d bytes, %v", i, len(got), err)
		}
	}
}

func TestServe_ReaderWhoHangsUp_EndsTheRequestToTheHomeserver(t *testing.T) {
	s := newStoredStage(t)
	asked, ended := make(chan struct{}), make(chan struct{})
	s.hs.answerWith(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(ended)
	})
	conn, _ := dial(t, s.serve())
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", s.link(photo()))
	<-asked
	conn.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the homeserver is still asked")
	}
}

func TestProxy07_Redaction_CutsAFileOfTheCacheWhoseReaderDoesNotRead(t *testing.T) {
	s := newStoredStage(t, cached(t), func(c *ServerConfig) { c.Stall = time.Hour })
	s.hs.put("big", "image/png", pattern(64<<20))
	link := s.link(mediaOf("big", "image/png", "big.png"))
	addr := s.serve()
	conn, in := dial(t, addr)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", link)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	settled(s.server.cache)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", link) // and nothing is read
	until(t, "the file is on its way", func() bool {
		s.server.liveMu.Lock()
		defer s.server.liveMu.Unlock()
		return len(s.server.live) == 1
	})
	redact(t, s)
	until(t, "the answer is cut", func() bool { return counted(t, s.server.metrics.cuts.WithLabelValues("revoked")) == 1 })
}

func TestProxy19_ReaderWhoTakesNothingOfACachedFile_IsLetGo(t *testing.T) {
	s := newStoredStage(t, cached(t), func(c *ServerConfig) { c.Stall = patience })
	s.hs.put("big", "image/png", pattern(64<<20))
	link := s.link(mediaOf("big", "image/png", "big.png"))
	wantStatus(t, s.get(link), 200)
	settled(s.server.cache)
	conn, _ := dial(t, s.serve())
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", link)
	until(t, "the answer is cut", func() bool { return counted(t, s.server.metrics.cuts.WithLabelValues("reader")) == 1 })
}

func TestProxy19_ConnectionsOfOneAddress_AreBoundedButForTrustedProxies(t *testing.T) {
	for name, trusted := range map[string][]netip.Prefix{"reader": nil, "trusted": loopback} {
		s := newStoredStage(t, func(c *ServerConfig) { c.TrustedProxies = trusted })
		addr := s.serve()
		for range maxConnsPerReader {
			dial(t, addr)
		}
		conn, in := dial(t, addr)
		io.WriteString(conn, "GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := in.ReadByte()
		if refused := err != nil; refused != (trusted == nil) {
			t.Errorf("%s: one more connection: %v", name, err)
		}
	}
}

func TestListener_ConnectionsInAll_AreBoundedAndGivenBack(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(inner, loopback)
	l.places = make(chan struct{}, 1)
	dial(t, inner.Addr().String())
	dial(t, inner.Addr().String())
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var more atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			more.Store(true)
			c.Close()
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if more.Load() {
		t.Error("a second connection was taken")
	}
	first.Close()
	first.Close() // gives one place back, not two
	until(t, "the second connection is taken", more.Load)
	if len(l.places) > 1 {
		t.Errorf("%d places are taken", len(l.places))
	}
	l.Close()
	<-done
}

func TestProxy19_WhileOthersWait_SlowReadersGetLessTime(t *testing.T) {
	s := newStoredStage(t, func(c *ServerConfig) { c.Streams, c.Stall = 1, 8*time.Second })
	if p := s.server.patience(); p != 8*time.Second {
		t.Errorf("nobody waits: %v", p)
	}
	if !s.server.gate.enter(t.Context(), netip.MustParseAddr("192.0.2.1")) {
		t.Fatal("no place")
	}
	if s.server.gate.enter(t.Context(), netip.MustParseAddr("192.0.2.2")) {
		t.Fatal("two places")
	}
	if p := s.server.patience(); p != time.Second {
		t.Errorf("somebody waited: %v", p)
	}
}

func TestCache_OpenFiles_AreBoundedAndTheirReadersGoOn(t *testing.T) {
	s := newStoredStage(t, cached(t))
	body := pattern(100 << 10)
	c := s.server.cache
	var first *cachedFile
	for i := range maxHot + 8 {
		id := fmt.Sprint("file", i)
		s.hs.put(id, "image/png", body)
		link := s.link(mediaOf(id, "image/png", ""))
		wantStatus(t, s.get(link), 200)
		settled(c)
		wantStatus(t, s.get(link), 200)
		if i == 0 {
			first = c.peek(t.Context(), keyOf("example.org", id, "")).(*cachedFile)
		}
	}
	c.mu.Lock()
	open := c.hot.Len()
	c.mu.Unlock()
	if open != maxHot {
		t.Errorf("%d files are open", open)
	}
	c.discardAll("room")
	if c.hot.Len() != 0 {
		t.Errorf("%d files are open though none is left", c.hot.Len())
	}
	file := first.file
	if got, err := io.ReadAll(first); err != nil || string(got) != body {
		t.Errorf("the file that was deleted: %d bytes, %v", len(got), err)
	}
	first.Close()
	if _, err := file.Stat(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("it is still open: %v", err)
	}
}

func TestProxy14_AnyFileWanted_WhereThereIsNone_IsNotFound(t *testing.T) {
	s := newStoredStage(t)
	wantStatus(t, s.get(s.link(mediaOf("missing", "image/png", "")), "If-None-Match", "*"), 404)
	wantStatus(t, s.get(s.link(photo()), "If-None-Match", "*"), 304)
}
