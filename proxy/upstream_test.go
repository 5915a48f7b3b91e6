package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/internal/ports"
)

func TestProxy06_Upstream_WhatTheHomeserverAnswers_BecomesOurAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		status int
	}{
		{"missing", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 404, "M_NOT_FOUND") }, 404},
		{"missing, no JSON", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, 404},
		{"unknown on both endpoints", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 404, "M_UNRECOGNIZED") }, 404},
		{"401", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 401, "M_UNKNOWN_TOKEN") }, 502},
		{"403", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 403, "M_FORBIDDEN") }, 502},
		{"500", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 500, "M_UNKNOWN") }, 502},
		{"502", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 502, "M_TOO_LARGE") }, 502},
		{"504", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 504, "M_NOT_YET_UPLOADED") }, 502},
		{"429", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 429, "M_LIMIT_EXCEEDED") }, 503},
		{"400", func(w http.ResponseWriter, r *http.Request) { matrixError(w, 400, "M_UNKNOWN") }, 502},
		{"204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, 502},
		{"206", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(206); w.Write(png) }, 502},
		{"304", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, 502},
		{"302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) }, 502},
		{"307 to nowhere", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(307) }, 502},
		{"gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(png)
		}, 502},
		{"hangs up", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, 502},
		{"hangs up within the first bytes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write(png[:100])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 502},
		{"too large by its header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "99999999999")
			w.Write(png)
		}, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			s.hs.answerWith(c.answer)
			link := s.link(photo())
			resp := s.get(link)
			wantStatus(t, resp, c.status)
			wantHeader(t, resp, "Cache-Control", "no-store")
			wantHeader(t, resp, "Location", "")
			if b := bodyOf(t, resp); b != bodies[c.status] {
				t.Errorf("the reader was told %q", b)
			}
			wantStatus(t, s.do(http.MethodHead, link), c.status)
			s.hs.answerWith(nil)
			wantStatus(t, s.get(link), 200)
		})
	}
}

func TestProxy06_Upstream_HomeserverAway_Is502AndServesAgainWhenItIsBack(t *testing.T) {
	address, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	s := newStage(t, func(c *ServerConfig) { c.HomeserverURL = "http://" + address })
	link := s.link(photo())
	for range 2 { // at first it is not there yet, and then not any more
		wantStatus(t, s.get(link), 502)
		wantStatus(t, s.do(http.MethodHead, link), 502)
		hs := httptest.NewUnstartedServer(http.HandlerFunc(s.hs.answer))
		hs.Listener.Close()
		if hs.Listener, err = listenAt(address); err != nil {
			t.Fatal(err)
		}
		hs.Start()
		wantStatus(t, s.get(link), 200)
		hs.Close()
	}
}

func TestProxy06_Upstream_SlowToAnswer_Is504(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.FirstByte = 20 * time.Millisecond })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	wantStatus(t, s.get(s.link(photo())), 504)
}

func TestProxy06_Upstream_StallBeforeTheFirstBytes_Is504(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.Stall = 20 * time.Millisecond })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	wantStatus(t, s.get(s.link(photo())), 504)
}

func TestProxy11_Upstream_OldHomeserver_IsAskedAtTheLegacyEndpointAndRemembered(t *testing.T) {
	s := newStage(t)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+testToken {
			t.Error("asked without the token")
		}
		if r.URL.Path == downloads.legacy+"example.org/photo" {
			w.Write(png)
			return
		}
		matrixError(w, 404, "M_UNRECOGNIZED")
	})
	link := s.link(photo())
	for range 2 {
		wantStatus(t, s.get(link), 200)
	}
	if asked := s.hs.requests(); len(asked) != 3 {
		t.Errorf("%d requests, want 3: the old endpoint is remembered", len(asked))
	}
	// Upgraded: the legacy endpoint is frozen, and new media are on the other one.
	s.hs.answerWith(nil)
	for range 2 {
		wantStatus(t, s.get(link), 200)
	}
	if asked := s.hs.requests(); len(asked) != 6 {
		t.Errorf("%d requests, want 6", len(asked))
	}
}

func TestProxy11_Upstream_MediaNotFound_IsNotLookedForAtTheLegacyEndpoint(t *testing.T) {
	s := newStage(t)
	wantStatus(t, s.get(s.link(mediaOf("nothing", "", ""))), 404)
	if n := len(s.hs.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// cdn gives out png and remembers what it was sent.
func cdn(t *testing.T, handle http.HandlerFunc) *homeserver {
	h := newHomeserver(t)
	h.answerWith(handle)
	return h
}

func TestProxy10_Redirect_TokenGoesNowhere(t *testing.T) {
	for _, status := range []int{307, 308} {
		s := newStage(t, func(c *ServerConfig) { c.RedirectNetworks = loopback; c.RedirectHTTP = true })
		serve := func(w http.ResponseWriter, r *http.Request) { w.Write(png) }
		other := cdn(t, serve)
		s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Set-Cookie", "session=1")
			switch r.URL.Path {
			case downloads.authenticated + "example.org/photo":
				http.Redirect(w, r, "/again", status) // the same host and port
			case "/again":
				http.Redirect(w, r, other.URL+"/file?signature=x", status)
			}
		})
		resp := s.get(s.link(photo()))
		wantStatus(t, resp, 200)
		if bodyOf(t, resp) != string(png) {
			t.Error("not the file")
		}
		for _, r := range append(s.hs.requests()[1:], other.requests()...) {
			for _, h := range []string{"Authorization", "Cookie", "Referer"} {
				if r.Header.Get(h) != "" {
					t.Errorf("%d: %s went to %s%s", status, h, r.Host, r.URL.Path)
				}
			}
		}
		if len(other.requests()) != 1 {
			t.Error("the redirect was not followed")
		}
	}
}

func TestProxy10_Redirect_RefusedByTheOtherHost_IsNoAlarmAboutTheToken(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.RedirectNetworks = loopback; c.RedirectHTTP = true })
	other := cdn(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead || r.URL.Path == "/never" { // as a media store answers whose signature is for GET
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/x-unknown")
		w.Write(png)
	})
	path := "/file"
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+path, http.StatusTemporaryRedirect)
	})
	link := s.link(mediaOf("photo", "application/x-unknown", ""))
	wantStatus(t, s.do(http.MethodHead, link), 200)
	wantStatus(t, s.get(link), 200)
	path = "/never"
	wantStatus(t, s.get(link), 502)
	if n := counted(t, s.server.metrics.denied); n != 0 {
		t.Errorf("%v alarms", n)
	}
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) { matrixError(w, http.StatusForbidden, "M_FORBIDDEN") })
	wantStatus(t, s.get(link), 502)
	if n := counted(t, s.server.metrics.denied); n != 1 {
		t.Errorf("of the homeserver's own refusal: %v alarms", n)
	}
}

func TestProxy10_Redirect_PrivateAddress_IsRefusedWhenDialled(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.RedirectHTTP = true })
	other := cdn(t, func(w http.ResponseWriter, r *http.Request) { w.Write(png) })
	port := other.URL[strings.LastIndex(other.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://"+host+port+"/file", 307) })
		wantStatus(t, s.get(s.link(photo())), 502)
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("%d requests reached a private address", n)
	}
}

func TestProxy10_Redirect_SecondHopToAPrivateAddress_IsRefused(t *testing.T) {
	first := cdn(t, nil)
	s := newStage(t, func(c *ServerConfig) {
		c.RedirectHTTP = true
		c.RedirectNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	first.answerWith(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://127.0.0.2:1/x", 307) })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, first.URL, 307) })
	wantStatus(t, s.get(s.link(photo())), 502)
	if len(first.requests()) != 1 || !strings.Contains(s.log.String(), "not public") {
		t.Errorf("refused for another reason:\n%s", s.log)
	}
}

func TestProxy10_Redirect_FiveHops_AreFollowedAndSixAreNot(t *testing.T) {
	for hops, status := range map[int]int{5: 200, 6: 502} {
		s := newStage(t, func(c *ServerConfig) { c.RedirectNetworks = loopback; c.RedirectHTTP = true })
		var n atomic.Int64
		s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) <= int64(hops) {
				http.Redirect(w, r, fmt.Sprintf("/hop%d", n.Load()), 307)
				return
			}
			w.Write(png)
		})
		wantStatus(t, s.get(s.link(photo())), status)
	}
}

func TestProxy10_Redirect_PlainHTTPOrOddAddress_IsRefused(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.RedirectNetworks = loopback })
	other := cdn(t, func(w http.ResponseWriter, r *http.Request) { w.Write(png) })
	for _, to := range []string{other.URL, "file:///etc/passwd", "gopher://127.0.0.1/", "https://user:pw@127.0.0.1/", "https:///x", "//"} {
		s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(308)
		})
		wantStatus(t, s.get(s.link(photo())), 502)
	}
	if len(other.requests()) != 0 {
		t.Error("plain http was followed")
	}
	if strings.Count(s.log.String(), "not plain") != 2 {
		t.Errorf("an address with a user or without a host was refused for another reason:\n%s", s.log)
	}
}

func TestProxy10_Addresses_OnlyPublicOnes_MayBeDialled(t *testing.T) {
	for _, a := range []string{"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"} {
		if !isPublic(netip.MustParseAddr(a)) {
			t.Errorf("%s was refused", a)
		}
	}
	for _, a := range []string{
		"0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1",
		"192.168.0.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fc00::1", "fd00::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
		"2001::1", "2001:db8::1", "2002:7f00:1::", "2002:a00::1", "fec0::1", "3fff::1", "5f00::1", "100::1", "2606:4700::1%eth0",
	} {
		if isPublic(netip.MustParseAddr(a)) {
			t.Errorf("%s was let through", a)
		}
		if err := checkDial(netip.AddrPortFrom(netip.MustParseAddr(a), 443).String(), nil); err == nil {
			t.Errorf("%s may be dialled", a)
		}
	}
}

func TestProxy06_Stream_HomeserverEndsEarly_BreaksTheConnection(t *testing.T) {
	s := newStage(t)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "300000")
		w.Write(make([]byte, 200000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	wantBroken(t, s, s.link(photo()))
	if !strings.Contains(s.log.String(), `"cut":"homeserver"`) {
		t.Error(s.log)
	}
}

func TestProxy06_Stream_ChunkedAnswerBrokenOff_BreaksTheConnection(t *testing.T) {
	s := newStage(t)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 200000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	wantBroken(t, s, s.link(photo()))
}

// A reader without chunks, as nginx is towards a server unless it is told otherwise, takes the connection's end for that of the file.
func TestProxy06_Stream_LengthUnknownAndNoChunks_BreaksTheConnectionForAllToSee(t *testing.T) {
	plain := func(s *stage) (net.Conn, error) { return net.Dial("tcp", s.serve()) }
	secure := func(s *stage) (net.Conn, error) {
		front := httptest.NewTLSServer(s.server)
		t.Cleanup(front.Close)
		return tls.Dial("tcp", front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	}
	for name, c := range map[string]struct {
		dial   func(*stage) (net.Conn, error)
		change func(*ServerConfig)
	}{"no cache": {plain, func(*ServerConfig) {}}, "cache": {plain, cached(t)}, "TLS of its own": {secure, cached(t)}} {
		t.Run(name, func(t *testing.T) {
			s := newStoredStage(t, c.change)
			s.hs.answerWith(func(w http.ResponseWriter, _ *http.Request) {
				w.Write(make([]byte, 100_000))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			})
			conn, err := c.dial(s)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET "+s.link(mediaOf("broken", "application/x-thing", ""))+" HTTP/1.0\r\n\r\n")
			if got, err := io.ReadAll(conn); err == nil {
				t.Errorf("%d bytes are taken for the whole file", len(got))
			}
		})
	}
}

func TestStream_StallInTheMiddle_BreaksTheConnection(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.Stall = patience })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "300000")
		w.Write(make([]byte, 200000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	wantBroken(t, s, s.link(photo()))
	if !strings.Contains(s.log.String(), errSlow.Error()) {
		t.Error(s.log)
	}
}

func TestProxy19_Stream_MoreThanTheLimitWithoutALength_IsCutAtTheLimit(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.MaxSize = 150_000 })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 100_000))
		w.(http.Flusher).Flush()
		w.Write(make([]byte, 100_000))
	})
	if n := wantBroken(t, s, s.link(photo())); n > 150_000 {
		t.Errorf("%d bytes were let through", n)
	}
	if !strings.Contains(s.log.String(), `"cut":"size"`) {
		t.Error(s.log)
	}
}

func TestProxy19_Stream_ExactlyTheLimit_IsServed(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.MaxSize = 708 })
	wantStatus(t, s.get(s.link(photo())), 200)
	s.server.upstream.maxSize = 707
	wantStatus(t, s.get(s.link(photo())), 502)
}

func TestStream_LongerThanTheTotalLimit_IsCut(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.Total = patience })
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	wantBroken(t, s, s.link(photo()))
	if !strings.Contains(s.log.String(), `"cut":"time"`) {
		t.Error(s.log)
	}
}

// wantBroken reads a link over a real connection and expects it to break in the middle of the body. It returns the bytes read.
func wantBroken(t *testing.T, s *stage, link string) int {
	t.Helper()
	front := httptest.NewServer(s.server)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(front.URL + link)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	front.Close() // waits for the handler, and so for its log line
	if err == nil {
		t.Errorf("the reader takes %d bytes for the whole file", len(b))
	}
	return len(b)
}

func TestProxy08_ShortPiece_ReachesTheReaderBeforeTheNextComes(t *testing.T) {
	for name, s := range map[string]*stage{"as it comes": newStage(t), "through the cache": newStage(t, cached(t))} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Repeat([]byte("0123456789"), 20_000)
			pieces := [][]byte{data[:100_000], data[100_000:100_100], data[100_100:]}
			s.hs.put("blob", "application/x-thing", string(data))
			more := make(chan struct{})
			s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				for _, piece := range pieces {
					w.Write(piece)
					w.(http.Flusher).Flush()
					select {
					case <-more:
					case <-r.Context().Done(): // the test has failed
						return
					}
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.listen()+s.link(mediaOf("blob", "application/x-thing", "a.thing")), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer http.DefaultClient.CloseIdleConnections()
			defer resp.Body.Close()
			for n, piece := range pieces {
				got := make([]byte, len(piece))
				if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, piece) {
					t.Fatalf("piece %d: %v", n, err)
				}
				more <- struct{}{}
			}
		})
	}
}
