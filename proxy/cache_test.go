package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/prometheus/client_golang/prometheus"
)

// cached turns a stage's cache on.
func cached(tb testing.TB) func(*ServerConfig) {
	dir := tb.TempDir()
	return func(c *ServerConfig) { c.CacheDir = dir }
}

// cacheFiles are the files in a cache's folder, but for the lock.
func cacheFiles(tb testing.TB, dir string) (whole, partial []string) {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		switch {
		case e.Name() == lockName:
		case strings.HasPrefix(e.Name(), partialPrefix):
			partial = append(partial, e.Name())
		default:
			whole = append(whole, e.Name())
		}
	}
	return whole, partial
}

// settled waits until the cache has no fetch under way.
func settled(c *cache) { c.running.Wait() }

func counted(tb testing.TB, c prometheus.Metric) float64 {
	tb.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		tb.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func TestProxy20_FileInTheCache_IsServedWithoutTheHomeserver(t *testing.T) {
	s := newStage(t, cached(t))
	link := s.link(photo())
	first := s.get(link)
	wantStatus(t, first, 200)
	if bodyOf(t, first) != string(png) {
		t.Error("not the file")
	}
	settled(s.server.cache)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) { t.Error("the homeserver was asked again") })
	for _, method := range []string{"GET", "HEAD", "GET"} {
		again := s.do(method, link)
		wantStatus(t, again, 200)
		for name := range first.Header {
			wantHeader(t, again, name, first.Header.Get(name))
		}
		want := string(png)
		if method == "HEAD" {
			want = ""
		}
		if bodyOf(t, again) != want {
			t.Errorf("%s: not the file", method)
		}
	}
	if n := counted(t, s.server.metrics.cache.WithLabelValues("hit")); n != 3 {
		t.Errorf("%v hits", n)
	}
}

func TestProxy20_NoCacheConfigured_KeepsNothing(t *testing.T) {
	s := newStage(t)
	link := s.link(photo())
	s.get(link)
	s.get(link)
	if n := len(s.hs.requests()); n != 2 {
		t.Errorf("the homeserver was asked %d times", n)
	}
}

func TestProxy20_NameAndContentOfACachedFile_HoldNoSecret(t *testing.T) {
	s := newStage(t, cached(t))
	link := s.link(photo())
	s.get(link)
	settled(s.server.cache)
	whole, _ := cacheFiles(t, s.server.cache.dir)
	if len(whole) != 1 {
		t.Fatal(whole)
	}
	raw, err := os.ReadFile(filepath.Join(s.server.cache.dir, whole[0]))
	if err != nil {
		t.Fatal(err)
	}
	_, m := parse(t, link)
	for _, secret := range []string{testToken, formatMAC(m), string(m[:]), string(testKey(7).Secret), "!room", "$event"} {
		if strings.Contains(whole[0], secret) || bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%q is in the cache", secret)
		}
	}
	info, err := os.Stat(filepath.Join(s.server.cache.dir, whole[0]))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if info, err = os.Stat(s.server.cache.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestProxy20_AfterARestart_TheCacheIsWhatItWas(t *testing.T) {
	on := cached(t)
	s := newStage(t, on)
	s.get(s.link(photo()))
	settled(s.server.cache)
	if _, err := openCache(s.server.cache.dir, 1<<20, 1<<20, time.Hour, time.Hour, time.Now, s.server.log, s.server.metrics); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process: %v", err)
	}
	if err := s.server.Close(); err != nil {
		t.Fatal(err)
	}
	again := newStage(t, on)
	resp := again.get(again.link(photo()))
	if bodyOf(t, resp) != string(png) || len(again.hs.requests()) != 0 {
		t.Error("not from the cache")
	}
}

// A process that is killed leaves partial files, and after a power loss perhaps named files that are not whole.
func TestProxy20_FilesThatAreNotWhole_AreNeverServed(t *testing.T) {
	on := cached(t)
	s := newStage(t, on)
	s.get(s.link(photo()))
	settled(s.server.cache)
	dir := s.server.cache.dir
	whole, _ := cacheFiles(t, dir)
	good, err := os.ReadFile(filepath.Join(dir, whole[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.server.Close(); err != nil {
		t.Fatal(err)
	}
	for name, spoiled := range map[string][]byte{
		"cut in the body": good[:len(good)-1], "cut in the header": good[:100], "empty": nil, "longer": append(bytes.Clone(good), 'x'),
		"another magic": append([]byte("X"), good[1:]...), "another type": append(append(bytes.Clone(good[:50]), good[50]^1), good[51:]...),
		"another size": append(append(bytes.Clone(good[:15]), good[15]+1), good[16:]...),
	} {
		if err := os.WriteFile(filepath.Join(dir, whole[0]), spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, partialPrefix+"123"), good, 0o600); err != nil {
			t.Fatal(err)
		}
		again := newStage(t, on)
		if _, partial := cacheFiles(t, dir); len(partial) != 0 {
			t.Errorf("%s: %v", name, partial)
		}
		resp := again.get(again.link(photo()))
		if bodyOf(t, resp) != string(png) || len(again.hs.requests()) != 1 {
			t.Errorf("%s: not from the homeserver", name)
		}
		settled(again.server.cache)
		if err := again.server.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProxy20_FileOlderThanItMayBe_IsFetchedAgain(t *testing.T) {
	s := newStage(t, cached(t), func(c *ServerConfig) { c.CacheAge = time.Hour })
	link := s.link(photo())
	s.get(link)
	settled(s.server.cache)
	s.clock.Advance(time.Hour - time.Second)
	s.get(link)
	if n := len(s.hs.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
	s.clock.Advance(time.Second)
	s.get(link)
	if n := len(s.hs.requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestProxy20_CacheThatIsFull_LosesTheLeastRecentlyUsed(t *testing.T) {
	const size = 10_000
	s := newStage(t, cached(t), func(c *ServerConfig) { c.CacheSize = 4 * (size + headerSize) })
	get := func(n int) {
		s.get(s.link(mediaOf(fmt.Sprint("file", n), "text/plain", "a.txt")))
		settled(s.server.cache)
	}
	for n := range 4 {
		s.hs.put(fmt.Sprint("file", n), "text/plain", strings.Repeat(fmt.Sprint(n), size))
		get(n)
	}
	get(0) // used again
	s.hs.put("file4", "text/plain", strings.Repeat("4", size))
	get(4)
	before := len(s.hs.requests())
	for _, n := range []int{0, 2, 3, 4} {
		get(n)
	}
	if n := len(s.hs.requests()) - before; n != 0 {
		t.Errorf("%d files were lost besides", n)
	}
	get(1)
	if n := len(s.hs.requests()) - before; n != 1 {
		t.Error("the least recently used one is there")
	}
	whole, partial := cacheFiles(t, s.server.cache.dir)
	if len(whole) != 4 || len(partial) != 0 || s.server.cache.used != 4*(size+headerSize) {
		t.Errorf("%d files, %d partial ones, %d bytes", len(whole), len(partial), s.server.cache.used)
	}
}

func TestProxy20_FileThatNobodyAsksForAgain_LeavesTheDiskInTime(t *testing.T) {
	dir := cached(t)
	short := func(c *ServerConfig) { dir(c); c.CacheAge = time.Hour }
	s := newStage(t, short)
	s.hs.put("later", "image/png", string(png))
	link, later := s.link(photo()), s.link(mediaOf("later", "image/png", ""))
	wantStatus(t, s.get(link), 200)
	settled(s.server.cache)
	left := func(want int) (partial []string) {
		t.Helper()
		var whole []string
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if whole, partial = cacheFiles(t, s.server.cache.dir); len(whole) == want {
				return partial
			}
		}
		t.Fatalf("the disk has %v, want %d files", whole, want)
		return nil
	}
	s.clock.Advance(30 * time.Minute)
	wantStatus(t, s.get(later), 200)
	settled(s.server.cache)
	left(2)
	s.clock.Advance(30 * time.Minute)
	left(1)
	s.server.cache.isEmpty() // the sweep is done with its lock
	if n := counted(t, s.server.metrics.removed.WithLabelValues("age")); n != 1 {
		t.Errorf("%v in the metrics", n)
	}
	if err := s.server.Close(); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(time.Hour) // while no process runs
	s = newStageWith(t, nil, s.signer.Keys(), s.clock, short)
	if whole, _ := cacheFiles(t, s.server.cache.dir); len(whole) != 0 {
		t.Errorf("after a restart the disk has %v", whole)
	}
}

func TestProxy20_FileTooLargeForTheCache_IsPassedOn(t *testing.T) {
	s := newStage(t, cached(t), func(c *ServerConfig) { c.CacheSize = 100_000 })
	s.hs.put("large", "text/plain", strings.Repeat("x", 60_000))
	for range 2 {
		resp := s.get(s.link(mediaOf("large", "text/plain", "")))
		if n := len(bodyOf(t, resp)); n != 60_000 {
			t.Errorf("%d bytes", n)
		}
	}
	settled(s.server.cache)
	if n := len(s.hs.requests()); n != 2 || s.server.cache.used != 0 {
		t.Errorf("%d requests, %d bytes", n, s.server.cache.used)
	}
}

func TestProxy20_DiskThatFails_IsDoneWithout(t *testing.T) {
	s := newStage(t, cached(t))
	if err := os.RemoveAll(s.server.cache.dir); err != nil {
		t.Fatal(err)
	}
	resp := s.get(s.link(photo()))
	wantStatus(t, resp, 200)
	if bodyOf(t, resp) != string(png) {
		t.Error("not the file")
	}
	settled(s.server.cache)
	if n := len(s.hs.requests()); n != 1 || s.server.cache.used != 0 {
		t.Errorf("%d requests, %d bytes set aside", n, s.server.cache.used)
	}
}

func TestProxy20_HomeserverThatBreaksOff_LeavesNothingBehind(t *testing.T) {
	s := newStage(t, cached(t))
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 200_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	link := s.link(mediaOf("photo", "application/x-thing", "a"))
	wantBroken(t, s, link)
	settled(s.server.cache)
	whole, partial := cacheFiles(t, s.server.cache.dir)
	if len(whole)+len(partial) != 0 || s.server.cache.used != 0 || len(s.server.cache.spools) != 0 {
		t.Errorf("%v %v, %d bytes", whole, partial, s.server.cache.used)
	}
	s.hs.answerWith(nil)
	resp := s.get(link)
	if bodyOf(t, resp) != string(png) {
		t.Error("not the file")
	}
}

func TestProxy19_200ReadersOfOneFile_MakeOneRequest(t *testing.T) {
	s := newStage(t, cached(t), func(c *ServerConfig) { c.Streams, c.StreamsPerIP, c.StreamsPerRoom = 200, 200, 200 })
	body := strings.Repeat("0123456789abcdef", 50_000)
	half, goOn := make(chan struct{}), make(chan struct{})
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body[:len(body)/2])
		w.(http.Flusher).Flush()
		close(half)
		<-goOn
		io.WriteString(w, body[len(body)/2:])
	})
	url := s.listen() + s.link(mediaOf("file", "text/plain", "a.txt"))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	var wg, begun sync.WaitGroup
	begun.Add(200)
	for range 200 {
		wg.Go(func() {
			resp, err := (&http.Client{Transport: transport}).Get(url)
			if err != nil {
				begun.Done()
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			// The first bytes come while the homeserver is still sending.
			_, err = io.ReadFull(resp.Body, make([]byte, 1000))
			begun.Done()
			if err != nil {
				t.Error(err)
				return
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || string(b) != body[1000:] {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	}
	<-half
	begun.Wait()
	close(goOn)
	wg.Wait()
	if n := len(s.hs.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
	if n := counted(t, s.server.metrics.cache.WithLabelValues("joined")); n != 199 {
		t.Errorf("%v joined", n)
	}
}

func TestProxy20_ReaderWhoLeaves_DoesNotEndTheFetch(t *testing.T) {
	s := newStage(t, cached(t))
	body := strings.Repeat("x", 300_000)
	goOn := make(chan struct{})
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body[:100_000])
		w.(http.Flusher).Flush()
		<-goOn
		io.WriteString(w, body[100_000:])
	})
	link := s.link(mediaOf("file", "text/plain", "a.txt"))
	resp := s.get(link, "Range", "bytes=0-99")
	wantStatus(t, resp, 206)
	close(goOn)
	settled(s.server.cache)
	if b := bodyOf(t, s.get(link, "Range", "bytes=200000-")); len(b) != 100_000 {
		t.Errorf("%d bytes", len(b))
	}
	if n := len(s.hs.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestProxy20_FetchesThatNobodyFollows_AreFew(t *testing.T) {
	s := newStage(t, cached(t))
	var under sync.WaitGroup
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		defer under.Done()
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	const extra = 3
	for n := range maxIdle + extra {
		under.Add(1)
		wantStatus(t, s.get(s.link(mediaOf(fmt.Sprint("file", n), "application/x-thing", "")), "Range", "bytes=0-9"), 206)
	}
	s.server.cache.mu.Lock()
	idle, spools := len(s.server.cache.idle), len(s.server.cache.spools)
	s.server.cache.mu.Unlock()
	if idle != maxIdle || spools != maxIdle {
		t.Errorf("%d fetches go on, %d are on the list", idle, spools)
	}
	if err := s.server.Close(); err != nil {
		t.Fatal(err)
	}
	under.Wait() // all of them were ended
}

// Readers, evictions and removals at once: whoever is answered gets his file, whole and right.
func TestProxy20_EvictionUnderConcurrency_NeverMixesOrCutsFiles(t *testing.T) {
	const files, size = 12, 40_000
	s := newStage(t, cached(t), func(c *ServerConfig) {
		c.CacheSize = 4 * (size + headerSize)
		c.Streams, c.StreamsPerIP, c.StreamsPerRoom = 100, 100, 100
	})
	links := make([]string, files)
	for n := range files {
		s.hs.put(fmt.Sprint("file", n), "text/plain", strings.Repeat(string(rune('a'+n)), size))
		links[n] = s.link(mediaOf(fmt.Sprint("file", n), "text/plain", ""))
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 60 {
				n := random.IntN(files)
				if random.IntN(10) == 0 {
					s.server.cache.discard(keyOf("example.org", fmt.Sprint("file", n), ""), "revoked")
				}
				from := random.IntN(size)
				resp := s.get(links[n], "Range", fmt.Sprintf("bytes=%d-", from))
				if b := bodyOf(t, resp); resp.StatusCode != 206 || b != strings.Repeat(string(rune('a'+n)), size-from) {
					t.Errorf("file %d from %d: status %d, %d bytes\n%s", n, from, resp.StatusCode, len(b), s.log)
				}
			}
		})
	}
	wg.Wait()
	settled(s.server.cache)
	whole, partial := cacheFiles(t, s.server.cache.dir)
	if c := s.server.cache; c.used > c.limit || int64(len(whole))*(size+headerSize) != c.used || len(partial) != 0 {
		t.Errorf("%d files, %d partial ones, %d bytes of %d", len(whole), len(partial), c.used, c.limit)
	}
}
