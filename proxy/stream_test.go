package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"
)

func listenAt(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// endless gives size zeros without holding them.
func endless(size int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", "268435456")
		zeros := make([]byte, 32<<10)
		for sent := int64(0); sent < size; sent += int64(len(zeros)) {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	}
}

func TestProxy18_Stream_256MiB_TakeLittleMemory(t *testing.T) {
	const size = 256 << 20
	s := newStage(t, func(c *ServerConfig) { c.MaxSize = size })
	s.hs.answerWith(endless(size))
	url := s.listen() + s.link(mediaOf("big", "application/octet-stream", "big.bin"))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, total := heap(), uint64(0), int64(0)
	for {
		n, err := io.CopyN(io.Discard, resp.Body, 16<<20)
		total += n
		most = max(most, heap())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total != size {
		t.Errorf("%d bytes", total)
	}
	if most > before+16<<20 {
		t.Errorf("the heap grew by %d MiB", (most-before)>>20)
	}
}

func TestProxy14_Stream_RangeDeepInALargeFile_EndsTheUpstreamWhenItIsServed(t *testing.T) {
	const size = 256 << 20
	s := newStage(t, func(c *ServerConfig) { c.MaxSize = size })
	ended := make(chan bool, 1)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		endless(size)(w, r)
		ended <- true
	})
	resp := s.get(s.link(mediaOf("big", "application/octet-stream", "big.bin")), "Range", "bytes=1000000-1000009")
	wantStatus(t, resp, 206)
	wantHeader(t, resp, "Content-Range", "bytes 1000000-1000009/268435456")
	if b := bodyOf(t, resp); len(b) != 10 {
		t.Errorf("%d bytes", len(b))
	}
	<-ended
}

func TestProxy19_Stream_ReaderThatDoesNotRead_IsLetGo(t *testing.T) {
	const size = 256 << 20
	s := newStage(t, func(c *ServerConfig) { c.MaxSize = size; c.Stall = patience })
	s.hs.answerWith(endless(size))
	done := make(chan bool)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		s.server.ServeHTTP(w, r)
	}))
	defer front.Close()
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET "+s.link(mediaOf("big", "", "big.bin"))+" HTTP/1.1\r\nHost: x\r\n\r\n")
	<-done
	if !strings.Contains(s.log.String(), `"cut":"reader"`) {
		t.Error(s.log)
	}
	if len(s.server.gate.places) != 0 {
		t.Error("the place was not given back")
	}
}

func TestProxy07_Stream_RevokedUnderWay_IsCut(t *testing.T) {
	var revoked atomic.Bool
	s := newStage(t, func(c *ServerConfig) {
		c.Revoked = func(context.Context, id.RoomID, id.EventID) (bool, error) { return revoked.Load(), nil }
	})
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
			revoked.Store(true)
			time.Sleep(time.Millisecond)
		}
	})
	wantBroken(t, s, s.link(photo()))
	if !strings.Contains(s.log.String(), `"cut":"revoked"`) {
		t.Error(s.log)
	}
}

func TestProxy19_Stream_ReaderWhoLeaves_EndsTheUpstream(t *testing.T) {
	s := newStage(t)
	ended := make(chan bool)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 100_000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.listen()+s.link(photo()), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	<-ended
}

func TestProxy19_Stream_RequestWithABodyThatNeverComes_DoesNotHoldTheConnection(t *testing.T) {
	s := newStage(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.listen(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET "+s.link(photo())+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	b, _ := io.ReadAll(conn) // ends only when the server closes
	if !strings.HasPrefix(string(b), "HTTP/1.1 200") || !strings.HasSuffix(string(b), string(png)) {
		t.Errorf("%.100q", b)
	}
}

func TestProxy19_Stream_ManyReadersAtOnce_GetTheWholeFile(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.StreamsPerIP = 50; c.Streams = 8; c.QueueWait = time.Minute })
	body := strings.Repeat("0123456789abcdef", 20_000)
	s.hs.put("file", "text/plain", body)
	url := s.listen() + s.link(mediaOf("file", "text/plain", "a.txt"))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	var served, refused atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			resp, err := (&http.Client{Transport: transport}).Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			switch {
			case err != nil:
				t.Error(err)
			case resp.StatusCode == 429:
				refused.Add(1)
			case resp.StatusCode == 200 && string(b) == body:
				served.Add(1)
			default:
				t.Errorf("status %d, %d bytes", resp.StatusCode, len(b))
			}
		})
	}
	wg.Wait()
	if served.Load() != 16 {
		t.Errorf("%d served, %d refused", served.Load(), refused.Load())
	}
}
