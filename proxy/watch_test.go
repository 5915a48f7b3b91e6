package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// replica is another process's server on the database of a stage: it has no part in the store that the stage holds.
func (s *stage) replica(tb testing.TB, uri string, change ...func(*ServerConfig)) *stage {
	tb.Helper()
	v, err := store.Visit(tb.Context(), uri)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { v.Close() })
	other := *s
	transport := &http.Transport{DisableCompression: true}
	tb.Cleanup(transport.CloseIdleConnections)
	cfg := ServerConfig{HomeserverURL: s.hs.URL, Token: testToken, Store: v, Now: time.Now, QueueWait: -1, Rates: noLimits, HTTPClient: &http.Client{Transport: transport}}
	for _, c := range change {
		c(&cfg)
	}
	if other.server, err = NewServer(cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { other.server.Close() })
	return &other
}

// onBothEngines runs a test with a stage that holds a database, whose signer has the real clock, and the database's URI.
func onBothEngines(t *testing.T, run func(t *testing.T, s *stage, uri string)) {
	for name, uri := range map[string]func(testing.TB) string{"SQLite": storetest.SQLite, "PostgreSQL": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			at := uri(t)
			st := storetest.Open(t, at, store.Options{})
			s := newStageWith(t, st, nil, newClock())
			s.signer.now = time.Now
			run(t, s, at)
		})
	}
}

func redact(t *testing.T, s *stage) {
	t.Helper()
	storetest.Commit(t, s.store, func(tx *store.Tx) error {
		_, err := tx.RevokeMedia("!room:example.org", "$event")
		return err
	})
}

// until waits for what another goroutine does.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestProxy07_Redaction_CutsStalledStreamsAndEmptiesTheCacheOnEveryReplica(t *testing.T) {
	onBothEngines(t, func(t *testing.T, s *stage, uri string) {
		link := s.link(photo())
		selfContained, err := s.signer.SelfContained(photo())
		if err != nil {
			t.Fatal(err)
		}
		selfContained = strings.TrimPrefix(selfContained, testPublic)
		replicas := []*stage{s.replica(t, uri, cached(t)), s.replica(t, uri, cached(t))}
		for _, r := range replicas {
			wantStatus(t, r.get(link), 200)
			settled(r.server.cache)
			if r.server.cache.isEmpty() {
				t.Fatal("the cache has nothing")
			}
		}
		// Beside them a stream that neither side moves.
		other := mediaOf("endless", "application/x-thing", "")
		stalled := make(chan struct{})
		s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			w.Write(make([]byte, 100_000))
			w.(http.Flusher).Flush()
			close(stalled)
			<-r.Context().Done()
		})
		plain := s.replica(t, uri)
		resp, err := http.Get(plain.listen() + s.link(other))
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer resp.Body.Close()
		<-stalled
		redact(t, s)
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the stream ended well")
		}
		for _, r := range replicas {
			wantStatus(t, r.get(link), 410)
			wantStatus(t, r.get(selfContained), 410)
			until(t, "the cache is empty", r.server.cache.isEmpty)
		}
		if n := counted(t, plain.server.metrics.cuts.WithLabelValues("revoked")); n != 1 {
			t.Errorf("%v cut", n)
		}
	})
}

func TestProxy07_Redaction_CutsAnAnswerWhoseReaderDoesNotRead(t *testing.T) {
	const size = 256 << 20
	s := newStoredStage(t, func(c *ServerConfig) { c.MaxSize, c.Stall = size, time.Hour })
	var sent atomic.Int64
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			n, _ := w.Write(make([]byte, 32<<10))
			sent.Add(int64(n))
		}
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.listen(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET "+s.link(mediaOf("big", "", "big.bin"))+" HTTP/1.1\r\nHost: x\r\n\r\n")
	until(t, "nothing moves any more", func() bool {
		before := sent.Load()
		time.Sleep(200 * time.Millisecond)
		return before > 0 && sent.Load() == before
	})
	redact(t, s)
	until(t, "the answer is cut", func() bool { return counted(t, s.server.metrics.cuts.WithLabelValues("revoked")) == 1 })
}

func TestProxy23_RevokedByRoomSenderOrEverything_LinksEndAndNewOnesLive(t *testing.T) {
	onBothEngines(t, func(t *testing.T, s *stage, uri string) {
		r := s.replica(t, uri)
		for name, sc := range map[string]store.MediaScope{
			"room": {Room: "!room:example.org"}, "sender": {Sender: "@alice:example.org"}, "everything": {}, "media": {Server: "example.org", Media: "photo"},
		} {
			m := photo()
			m.Sender = "@alice:example.org"
			short := s.link(m)
			full, err := s.signer.SelfContained(m)
			if err != nil {
				t.Fatal(err)
			}
			full = strings.TrimPrefix(full, testPublic)
			elsewhere := mediaOf("other", "text/plain", "")
			elsewhere.Room, elsewhere.Sender = "!other:example.org", "@bob:example.org"
			s.hs.put("other", "text/plain", "x")
			kept := s.link(elsewhere)
			wantStatus(t, r.get(short), 200)
			wantStatus(t, r.get(full), 200)
			time.Sleep(2 * time.Millisecond) // times are kept in milliseconds
			if err := s.store.ChangeMedia(t.Context(), func(tx store.MediaTx) error { _, err := tx.RevokeLinks(sc); return err }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
			wantStatus(t, r.get(short), 410)
			if name != "sender" { // of whom a self-contained link says nothing
				wantStatus(t, r.get(full), 410)
			}
			if name != "everything" {
				wantStatus(t, r.get(kept), 200)
			}
			wantStatus(t, r.get(s.link(m)), 200)
		}
	})
}

func TestProxy04_NewKeyThatSignsAtOnce_IsKnownToEveryReplicaAtItsFirstLink(t *testing.T) {
	onBothEngines(t, func(t *testing.T, s *stage, uri string) {
		r := s.replica(t, uri)
		for range 3 {
			old := s.link(photo())
			wantStatus(t, r.get(old), 200)
			c, _ := parse(t, old)
			if err := s.signer.Keys().Retire(t.Context(), c.key); err != nil { // the only one: its successor signs at once
				t.Fatal(err)
			}
			wantStatus(t, r.get(s.link(photo())), 200)
			until(t, "the retired key is dead on the replica", func() bool { return r.get(old).StatusCode == 404 })
		}
	})
}

func TestProxy04_RotationsAtOnce_LeaveOneSigningKeyAndAllLinksAlive(t *testing.T) {
	onBothEngines(t, func(t *testing.T, s *stage, uri string) {
		link := s.link(photo())
		done := make(chan error, 4)
		for range cap(done) {
			v, err := store.Visit(t.Context(), uri)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			ring, err := OpenKeyRing(t.Context(), v, nil)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, err := ring.Rotate(t.Context()); done <- err }()
		}
		rotated := 0
		for range cap(done) {
			if err := <-done; err == nil {
				rotated++
			}
		}
		keys, err := s.store.MediaKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		signing := 0
		for _, k := range keys {
			if k.Retired.IsZero() {
				signing++
			}
		}
		if signing != 1 || rotated == 0 || len(keys) != rotated+1 {
			t.Errorf("%d keys, %d sign, %d rotations", len(keys), signing, rotated)
		}
		wantStatus(t, s.replica(t, uri).get(link), 200)
	})
}

func TestProxy05_LinkOfAnUnknownKey_WaitsAndAsksNobody(t *testing.T) {
	s := newStoredStage(t)
	c := claims{purpose: purposeShort, key: 200, record: 1}
	wantStatus(t, s.get(c.path(c.sum(testKey(200).Secret), "x")), 404)
	s.server.awaiting.Store(maxAwaiting)
	wantStatus(t, s.get(c.path(c.sum(testKey(200).Secret), "x")), 404) // too many wait already
	s.server.awaiting.Store(0)
	if len(s.hs.requests()) != 0 {
		t.Error("the homeserver was asked")
	}
}

func TestProxy07_RevocationThatAppearsLate_IsSeen(t *testing.T) {
	s := newStoredStage(t, cached(t))
	s.server.stopWatching()
	s.server.watcher.Wait()
	feed := &revocationFeed{Links: s.store}
	s.server.links = feed
	s.get(s.link(photo()))
	settled(s.server.cache)
	var seen revocationCursor
	obey := func() {
		t.Helper()
		if err := s.server.obey(t.Context(), &seen); err != nil {
			t.Fatal(err)
		}
	}
	feed.rows = []store.MediaRevocation{{ID: 5, Made: s.clock.Now(), MediaScope: store.MediaScope{Server: "x", Media: "y"}}}
	obey()
	if s.server.cache.isEmpty() {
		t.Fatal("the wrong file was purged")
	}
	late := store.MediaRevocation{ID: 4, Made: s.clock.Now(), MediaScope: store.MediaScope{Room: "!room:example.org"}}
	feed.rows = append([]store.MediaRevocation{late}, feed.rows...)
	obey()
	if !s.server.cache.isEmpty() {
		t.Error("a revocation with a lower number was not seen")
	}
	for id := range seen.done {
		seen.done[id] = time.Now().Add(-2 * lateFor)
	}
	obey()
	if seen.after != 5 || len(seen.done) != 0 {
		t.Errorf("still looks after %d, and remembers %d", seen.after, len(seen.done))
	}
}

// readingLinks has something happen just after a record was read.
type readingLinks struct {
	Links
	then func()
}

func (l *readingLinks) Media(ctx context.Context, id int64) (*store.Media, error) {
	m, err := l.Links.Media(ctx, id)
	if then := l.then; then != nil {
		l.then = nil
		then()
	}
	return m, err
}

func TestProxy07_RevokedWhileItsRecordIsRead_IsNeitherServedNorKept(t *testing.T) {
	for name, remembered := range map[string]bool{"read": false, "remembered": true} {
		t.Run(name, func(t *testing.T) {
			uri := storetest.SQLite(t)
			s := newStageWith(t, storetest.Open(t, uri, store.Options{}), nil, newClock(), cached(t))
			elsewhere, err := store.Visit(t.Context(), uri)
			if err != nil {
				t.Fatal(err)
			}
			defer elsewhere.Close()
			s.server.stopWatching() // what it does is done here, at the worst moment
			s.server.watcher.Wait()
			link := s.link(photo())
			var seen revocationCursor
			obey := func() {
				err := elsewhere.ChangeMedia(t.Context(), func(tx store.MediaTx) error { _, err := tx.RevokeMedia("!room:example.org", "$event"); return err })
				if err = errors.Join(err, s.server.obey(t.Context(), &seen)); err != nil {
					t.Error(err)
				}
			}
			if remembered {
				wantStatus(t, s.get(link, "If-None-Match", etagOf(photo())), 304)
				obey() // and the watcher has not forgotten the link yet
			} else {
				s.server.links = &readingLinks{s.store, obey}
			}
			wantStatus(t, s.get(link), 410)
			settled(s.server.cache)
			if !s.server.cache.isEmpty() {
				t.Error("the file is in the cache")
			}
			if n := len(s.hs.requests()); n != 0 {
				t.Errorf("the homeserver was asked %d times", n)
			}
		})
	}
}

func etagOf(m Media) string {
	t := target{server: m.URI.Homeserver, mediaID: m.URI.FileID}
	return t.tag()
}

func TestProxy07_FetchOfACutAnswer_IsNotBegun(t *testing.T) {
	s := newStoredStage(t, cached(t))
	ctx, cut := context.WithCancelCause(t.Context())
	cut(errRevoked)
	_, err := s.server.cache.open(ctx, cacheKey{}, func(ctx context.Context) (*media, error) {
		return s.server.upstream.open(ctx, http.MethodGet, "example.org", "photo")
	})
	settled(s.server.cache)
	if !errors.Is(err, errRevoked) || len(s.hs.requests()) != 0 || !s.server.cache.isEmpty() {
		t.Errorf("%v, %d requests, empty: %v", err, len(s.hs.requests()), s.server.cache.isEmpty())
	}
}

// A link that has ended must not let its holder empty the cache for those whose links live.
func TestProxy20_RevokedLinkAskedAgain_LeavesTheFileOfALiveLink(t *testing.T) {
	s := newStoredStage(t, cached(t))
	dead := s.link(photo())
	other := photo()
	other.Event = "$other"
	live := s.link(other)
	redact(t, s)
	until(t, "the watcher has obeyed", func() bool { return s.server.cuts.Load() > 0 })
	wantStatus(t, s.get(live), 200)
	settled(s.server.cache)
	wantStatus(t, s.get(dead), 410)
	wantStatus(t, s.get(live), 200)
	if n := len(s.hs.requests()); n != 1 {
		t.Errorf("the homeserver was asked %d times", n)
	}
}

// revocationFeed gives revocations that a test writes.
type revocationFeed struct {
	Links
	rows []store.MediaRevocation
}

func (f *revocationFeed) MediaRevocations(_ context.Context, after int64, _ time.Time) ([]store.MediaRevocation, error) {
	var out []store.MediaRevocation
	for _, r := range f.rows {
		if r.ID > after {
			out = append(out, r)
		}
	}
	return out, nil
}
