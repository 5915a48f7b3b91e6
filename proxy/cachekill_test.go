package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// killedDir names the folder of the cache to the process that is to be killed.
const killedDir = "TRESTLE_TEST_KILLED_CACHE"

const killedFiles = 40

// killedBody is large enough to be caught half written.
func killedBody(n int) string { return strings.Repeat(fmt.Sprintf("file %d. ", n), 30_000) }

// TestKilled_Fill is the process that is killed: it fetches files into its cache until then.
func TestKilled_Fill(t *testing.T) {
	dir := os.Getenv(killedDir)
	if dir == "" {
		return // run by itself it has nothing to do
	}
	s := newStage(t, func(c *ServerConfig) { c.CacheDir, c.CacheSize = dir, 20*(300_000+headerSize) })
	for n := range killedFiles {
		s.hs.put(fmt.Sprint("file", n), "text/plain", killedBody(n))
	}
	for n := 0; ; n = (n + 1) % killedFiles {
		fmt.Println("fetching")
		s.get(s.link(mediaOf(fmt.Sprint("file", n), "text/plain", "")))
	}
}

func TestProxy20_ProcessKilledWhileItWrites_LeavesWholeFilesOnly(t *testing.T) {
	dir := t.TempDir()
	for kill := range 5 {
		process := exec.Command(os.Args[0], "-test.run=^TestKilled_Fill$")
		process.Env = append(os.Environ(), killedDir+"="+dir)
		out, err := process.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		// At least one file must be whole, however slow the disk is; what comes then is at a moment of its own for each kill.
		for n := 0; ; n++ {
			if whole, _ := cacheFiles(t, dir); n >= 5+13*kill && len(whole) > 0 || !lines.Scan() {
				break
			}
		}
		process.Process.Kill()
		io.Copy(io.Discard, out)
		process.Wait() // it was killed: the error says so
		c, err := openCache(dir, 1<<30, 1<<20, time.Hour*1e6, time.Hour, time.Now, newStage(t).server.log, newStage(t).server.metrics)
		if err != nil {
			t.Fatal(err)
		}
		_, partial := cacheFiles(t, dir)
		if len(partial) != 0 {
			t.Errorf("kill %d: %v", kill, partial)
		}
		whole := 0
		for n := range killedFiles {
			c.mu.Lock()
			f := c.find(keyOf("example.org", fmt.Sprint("file", n), ""))
			c.mu.Unlock()
			if f == nil {
				continue
			}
			whole++
			if b, err := io.ReadAll(f); err != nil || string(b) != killedBody(n) {
				t.Errorf("kill %d: file %d has %d bytes, %v", kill, n, len(b), err)
			}
			f.Close()
		}
		if whole == 0 || whole != len(c.objects) {
			t.Errorf("kill %d: %d files, %d known", kill, whole, len(c.objects))
		}
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzCacheFile(f *testing.F) {
	h := header{size: 5, contentType: "image/png", sum: [32]byte{1}}
	f.Add(h.encode(), fileName(keyOf("a", "b", ""), time.Unix(5, 0)))
	f.Add([]byte(headerMagic), "00-1")
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		if h, err := decodeHeader(raw); err == nil && !bytes.Equal(h.encode(), raw) {
			t.Error("two headers of one meaning")
		}
		if key, at, ok := parseFileName(name); ok {
			if again, at2, ok := parseFileName(fileName(key, at)); !ok || again != key || !at2.Equal(at) {
				t.Error("came back as another")
			}
		}
	})
}
