package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"
)

func rates(change func(r *Rates)) func(*ServerConfig) {
	return func(c *ServerConfig) { c.Rates = noLimits; change(&c.Rates) }
}

func TestProxy19_OverALimitOfRequests_Is429UntilItHasPassed(t *testing.T) {
	for limit, change := range map[string]func(r *Rates){
		"reader": func(r *Rates) { r.Reader.Requests = 6 }, "room": func(r *Rates) { r.Room.Requests = 6 },
		"media": func(r *Rates) { r.Media.Requests = 6 }, "all": func(r *Rates) { r.All.Requests = 6 },
	} {
		t.Run(limit, func(t *testing.T) {
			s := newStage(t, rates(change))
			link := s.link(photo())
			for range 6 {
				wantStatus(t, s.get(link), 200)
			}
			asked := len(s.hs.requests())
			resp := s.get(link)
			wantStatus(t, resp, 429)
			wantHeader(t, resp, "Retry-After", "10")
			wantHeader(t, resp, "Cache-Control", "no-store")
			if len(s.hs.requests()) != asked {
				t.Error("the homeserver was asked")
			}
			if n := counted(t, s.server.metrics.limited.WithLabelValues(limit)); n != 1 {
				t.Errorf("%v in the metrics", n)
			}
			s.clock.Advance(9 * time.Second)
			wantHeader(t, s.get(link), "Retry-After", "1")
			s.clock.Advance(time.Second)
			wantStatus(t, s.get(link), 200)
			wantStatus(t, s.get(link), 429)
		})
	}
}

func TestProxy19_OverALimitOfBytes_Is429UntilTheyArePaidOff(t *testing.T) {
	for limit, change := range map[string]func(r *Rates){
		"reader": func(r *Rates) { r.Reader.Bytes = 6000 }, "room": func(r *Rates) { r.Room.Bytes = 6000 },
		"media": func(r *Rates) { r.Media.Bytes = 6000 }, "all": func(r *Rates) { r.All.Bytes = 6000 },
	} {
		t.Run(limit, func(t *testing.T) {
			s := newStage(t, rates(change))
			s.hs.put("big", "text/plain", strings.Repeat("x", 9000))
			link := s.link(mediaOf("big", "text/plain", ""))
			resp := s.get(link) // an answer that has begun is finished
			if n := len(bodyOf(t, resp)); n != 9000 {
				t.Errorf("%d bytes", n)
			}
			resp = s.get(link)
			wantStatus(t, resp, 429)
			wantHeader(t, resp, "Retry-After", "31")
			s.clock.Advance(31 * time.Second)
			wantStatus(t, s.get(link), 200)
		})
	}
}

func TestProxy19_WhatTheHomeserverSendsForAFewBytes_CountsAgainstTheLimit(t *testing.T) {
	body := []byte(strings.Repeat("x", 200<<10))
	for name, c := range map[string]struct {
		config func(*ServerConfig)
		media  func(s *stage) Media
		then   int
	}{
		"fetched again for each": {func(*ServerConfig) {}, func(s *stage) Media {
			s.hs.put("big", "text/plain", string(body))
			return mediaOf("big", "text/plain", "")
		}, 429},
		"encrypted":         {func(*ServerConfig) {}, func(s *stage) Media { return s.encrypted("big", "application/zip", "", body) }, 429},
		"kept in the cache": {cached(t), func(s *stage) Media { return s.encrypted("big", "text/plain", "", body) }, 206},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStoredStage(t, decrypting, rates(func(r *Rates) { r.Reader.Bytes = 100 << 10 }), c.config)
			link := s.link(c.media(s))
			resp := s.get(link, "Range", "bytes=-1")
			wantStatus(t, resp, 206)
			if got := bodyOf(t, resp); got != "x" {
				t.Errorf("%d bytes", len(got))
			}
			wantStatus(t, s.get(link, "Range", "bytes=-1"), c.then)
		})
	}
}

func TestProxy19_ReaderWhoLeavesBeforeAFileIsVerified_HasHadWhatWasFetched(t *testing.T) {
	s := newStoredStage(t, decrypting, rates(func(r *Rates) { r.Reader.Bytes = 100 << 10 }))
	link := s.link(s.encrypted("big", "image/png", "", make([]byte, 300<<10)))
	ctx, leave := context.WithCancel(t.Context())
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(300<<10))
		w.Write(make([]byte, 200<<10))
		w.(http.Flusher).Flush()
		for key := keyOf("example.org", "big", ""); ; time.Sleep(time.Millisecond) {
			s.server.cache.mu.Lock()
			sp := s.server.cache.spools[key]
			s.server.cache.mu.Unlock()
			sp.mu.Lock()
			there := sp.written == 200<<10
			sp.mu.Unlock()
			if there {
				break
			}
		}
		leave()
		<-r.Context().Done()
	})
	func() {
		defer func() { _ = recover() }() // the answer of a reader who has gone is aborted
		s.server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, link, nil).WithContext(ctx))
	}()
	wantStatus(t, s.get(link), 429)
}

func TestProxy19_OthersThanTheOneOverHisLimit_AreServed(t *testing.T) {
	s := newStage(t, rates(func(r *Rates) { r.Reader.Requests, r.Room.Requests, r.Media.Requests = 2, 4, 3 }))
	from := func(reader string, m Media) int {
		r := httptest.NewRequest("GET", s.link(m), nil)
		r.RemoteAddr = reader + ":1"
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		return w.Code
	}
	s.hs.put("other", "image/png", string(png))
	second, elsewhere := mediaOf("other", "image/png", "b.png"), mediaOf("other", "image/png", "b.png")
	elsewhere.Room = id.RoomID("!elsewhere:example.org")
	for i, step := range []struct {
		reader string
		m      Media
		want   int
	}{
		{"198.51.100.1", photo(), 200}, {"198.51.100.1", photo(), 200}, {"198.51.100.1", photo(), 429}, // the reader
		{"198.51.100.2", photo(), 200}, {"198.51.100.3", photo(), 429}, // the file
		{"198.51.100.4", second, 429}, // the room: what was refused by a later limit counts for an earlier one
		{"198.51.100.5", elsewhere, 200},
	} {
		if got := from(step.reader, step.m); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}

func TestProxy19_RoomWithItsPlacesTaken_Is429AndOtherRoomsAreServed(t *testing.T) {
	s := newStage(t, func(c *ServerConfig) { c.StreamsPerRoom = 1 })
	if !s.server.gate.enterRoom("!room:example.org") {
		t.Fatal("refused")
	}
	wantStatus(t, s.get(s.link(photo())), 429)
	other := photo()
	other.Room = "!other:example.org"
	wantStatus(t, s.get(s.link(other)), 200)
	s.server.gate.leaveRoom("!room:example.org")
	wantStatus(t, s.get(s.link(photo())), 200)
	if len(s.server.gate.rooms) != 0 || len(s.server.gate.places) != 0 {
		t.Error("the gate remembers who has gone")
	}
}

func TestProxy19_MeterOfManyReaders_ForgetsThem(t *testing.T) {
	c := newClock()
	m := newMeter(Rate{Requests: 60}, c.Now)
	for n := range 10_000 {
		m.take(fmt.Sprint(n))
	}
	c.Advance(time.Minute)
	m.take("one more")
	for n := range 10 {
		m.take(fmt.Sprint("again", n))
	}
	if n := len(m.buckets); n > maxBuckets {
		t.Errorf("%d buckets", n)
	}
	c.Advance(time.Hour)
	for n := range 2 * maxBuckets {
		m.take(fmt.Sprint("flood", n))
	}
	if n := len(m.buckets); n > maxBuckets {
		t.Errorf("%d buckets after a flood", n)
	}
}

func TestProxy19_WaitingReader_IsServedWithinHisDeadline(t *testing.T) {
	g := newGate(1, 5, 5, time.Nanosecond)
	s := newStage(t)
	s.server.gate = g
	if !g.enter(context.Background(), readerOf(httptest.NewRequest("GET", "/", nil), nil)) {
		t.Fatal("refused")
	}
	wantStatus(t, s.get(s.link(photo())), 429) // its deadline passes
}
