package proxy

import (
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// withDiskThatIsFull runs something while no file can have more than a header's bytes.
func withDiskThatIsFull(t *testing.T, do func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	full := before
	full.Cur = headerSize
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}()
	do()
}

func TestProxy20_DiskThatIsFull_IsDoneWithout(t *testing.T) {
	s := newStage(t, cached(t))
	link := s.link(photo())
	withDiskThatIsFull(t, func() {
		for range 2 {
			resp := s.get(link)
			wantStatus(t, resp, 200)
			if bodyOf(t, resp) != string(png) {
				t.Error("not the file")
			}
		}
		settled(s.server.cache)
	})
	whole, partial := cacheFiles(t, s.server.cache.dir)
	if n := len(s.hs.requests()); n != 2 || s.server.cache.used != 0 || len(whole)+len(partial) != 0 {
		t.Errorf("%d requests, %d bytes set aside, %v %v", n, s.server.cache.used, whole, partial)
	}
	if !strings.Contains(s.log.String(), "The media cache cannot write") {
		t.Error("the administrator is not told")
	}
	wantStatus(t, s.get(link), 200)
	settled(s.server.cache)
	if whole, _ := cacheFiles(t, s.server.cache.dir); len(whole) != 1 {
		t.Errorf("with room on the disk again the cache has %v", whole)
	}
}
