package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	mx "maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/crypto"
)

func decrypting(c *ServerConfig) { c.Decrypter = crypto.Attachments{} }

// encrypted puts an encrypted file on the homeserver, which knows nothing of its type.
func (s *stage) encrypted(mediaID, mime, name string, plain []byte) Media {
	file := mx.NewEncryptedFile()
	data := bytes.Clone(plain)
	file.EncryptInPlace(data)
	s.hs.put(mediaID, "application/octet-stream", string(data))
	m := mediaOf(mediaID, mime, name)
	m.Encrypted = &event.EncryptedFileInfo{EncryptedFile: *file}
	return m
}

func (s *stage) body(mediaID string) []byte {
	s.hs.mu.Lock()
	defer s.hs.mu.Unlock()
	return s.hs.files["example.org/"+mediaID].body
}

// alter flips one bit of a file on the homeserver.
func (s *stage) alter(mediaID string, at int) {
	s.hs.mu.Lock()
	defer s.hs.mu.Unlock()
	f := s.hs.files["example.org/"+mediaID]
	f.body = bytes.Clone(f.body) // an answer may still be on its way
	f.body[at] ^= 1
	s.hs.files["example.org/"+mediaID] = f
}

func TestProxy16_EncryptedMedia_IsServedInTheClear(t *testing.T) {
	for name, s := range map[string]*stage{"without a cache": newStoredStage(t, decrypting), "cached": newStoredStage(t, decrypting, cached(t))} {
		link := s.link(s.encrypted("secret", "image/png", "photo.png", png))
		for range 2 {
			resp := s.get(link)
			wantStatus(t, resp, 200)
			wantHeader(t, resp, "Content-Type", "image/png")
			wantHeader(t, resp, "Content-Disposition", `inline; filename="photo.png"`)
			wantHeader(t, resp, "Content-Length", "708")
			if bodyOf(t, resp) != string(png) {
				t.Errorf("%s: not the file", name)
			}
			head := s.do(http.MethodHead, link)
			wantStatus(t, head, 200)
			for name := range resp.Header {
				wantHeader(t, head, name, resp.Header.Get(name))
			}
			settled(s.server.cache)
		}
		if used := s.server.cache.used; used != 0 && !s.server.cache.keep {
			t.Errorf("%d bytes of disk are still set aside", used)
		}
	}
}

func TestProxy16_KeysOfEncryptedMedia_AreInNoLinkLogOrCache(t *testing.T) {
	s := newStoredStage(t, decrypting, cached(t))
	m := s.encrypted("secret", "image/png", "photo.png", png)
	link := s.link(m)
	if _, err := s.signer.SelfContained(m); err == nil {
		t.Error("a link without a record")
	}
	s.get(link)
	s.alter("secret", 10)
	s.server.cache.discard(keyOf("example.org", "secret", ""), "revoked")
	s.get(link)
	settled(s.server.cache)
	key, err := base64.RawURLEncoding.DecodeString(m.Encrypted.Key.Key)
	if err != nil {
		t.Fatal(err)
	}
	entries := s.log.String() + link
	whole, _ := cacheFiles(t, s.server.cache.dir)
	for _, name := range whole {
		raw, err := os.ReadFile(s.server.cache.dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, png[:20]) {
			t.Error("plaintext is on the disk")
		}
		entries += string(raw)
	}
	for _, secret := range []string{m.Encrypted.Key.Key, m.Encrypted.InitVector, string(key)} {
		if strings.Contains(entries, secret) {
			t.Error("a part of the keys is there")
		}
	}
}

func TestProxy17_AlteredCiphertext_IsNotServedAtAll(t *testing.T) {
	for name, s := range map[string]*stage{"without a cache": newStoredStage(t, decrypting), "cached": newStoredStage(t, decrypting, cached(t))} {
		for _, at := range []int{0, 100, 707} {
			mediaID := fmt.Sprint("secret", at)
			link := s.link(s.encrypted(mediaID, "image/png", "photo.png", png))
			s.alter(mediaID, at)
			before := len(s.hs.requests())
			for range 3 {
				resp := s.get(link)
				wantStatus(t, resp, 502)
				wantHeader(t, resp, "Cache-Control", "no-store")
				if bodyOf(t, resp) != bodies[502] {
					t.Error("bytes of it were served")
				}
			}
			if n := len(s.hs.requests()) - before; n != 1 {
				t.Errorf("%s: bad media was fetched %d times", name, n)
			}
		}
		if n := counted(t, s.server.metrics.tampered); n != 3 {
			t.Errorf("%v in the metrics", n)
		}
		settled(s.server.cache)
		if s.server.cache.used != 0 {
			t.Error("bad media is kept")
		}
	}
}

func TestProxy08_HeadOfAForgery_IsRefusedAsGetIs(t *testing.T) {
	s := newStoredStage(t, decrypting)
	link := s.link(s.encrypted("forged", "application/x-unknown", "", png))
	wantStatus(t, s.do(http.MethodHead, link), 200)
	s.alter("forged", 100)
	wantStatus(t, s.get(link), 502)
	wantStatus(t, s.do(http.MethodHead, link), 502)
}

func TestProxy17_MediaBadForOneEvent_IsGoodForAnother(t *testing.T) {
	s := newStoredStage(t, decrypting)
	good := s.encrypted("secret", "image/png", "photo.png", png)
	forged := *good.Encrypted
	forged.Hashes.SHA256 = base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	bad := good
	bad.Encrypted, bad.Event = &forged, "$forged"
	wantStatus(t, s.get(s.link(bad)), 502)
	wantStatus(t, s.get(s.link(good)), 200)
}

// slowly sends data in two parts, the second one when it is told to.
func slowly(data []byte, first int, goOn <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:first])
		w.(http.Flusher).Flush()
		select {
		case <-goOn:
			w.Write(data[first:])
		case <-r.Context().Done(): // the test has failed
		}
	}
}

// testVerifyFirst stands for maxVerifyFirst, which would be slow.
const testVerifyFirst = 1 << 20

// largeDownload is an encrypted file over the size up to which nothing is sent before it was verified.
func (s *stage) largeDownload() (Media, []byte) {
	s.server.verifyFirst = testVerifyFirst
	plain := bytes.Repeat([]byte("0123456789abcdef"), testVerifyFirst/16+20_000)
	return s.encrypted("large", "application/x-thing", "large.bin", plain), plain
}

func modesOfLargeDownloads(t *testing.T) map[string]*stage {
	noRoom := newStoredStage(t, decrypting)
	noRoom.server.cache.limit = 1 << 19
	return map[string]*stage{
		"cached": newStoredStage(t, decrypting, cached(t)), "without a cache": newStoredStage(t, decrypting), "without room on the disk": noRoom,
	}
}

func TestProxy17_LargeDownload_StreamsButForItsEnd(t *testing.T) {
	for name, s := range modesOfLargeDownloads(t) {
		t.Run(name, func(t *testing.T) {
			m, plain := s.largeDownload()
			goOn := make(chan struct{})
			s.hs.answerWith(slowly(s.body("large"), testVerifyFirst, goOn))
			resp, err := http.Get(s.listen() + s.link(m))
			if err != nil {
				t.Fatal(err)
			}
			defer http.DefaultClient.CloseIdleConnections()
			defer resp.Body.Close()
			wantStatus(t, resp, 200)
			got := make([]byte, testVerifyFirst-holdBack)
			if _, err := io.ReadFull(resp.Body, got); err != nil { // while the homeserver still sends
				t.Fatal(err)
			}
			close(goOn)
			rest, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(append(got, rest...), plain) {
				t.Errorf("%d bytes, %v", len(rest), err)
			}
			settled(s.server.cache)
		})
	}
}

func TestProxy17_LargeForgery_IsCutBeforeItsEnd(t *testing.T) {
	for name, s := range modesOfLargeDownloads(t) {
		t.Run(name, func(t *testing.T) {
			m, plain := s.largeDownload()
			s.alter("large", len(plain)-1)
			goOn := make(chan struct{})
			s.hs.answerWith(slowly(s.body("large"), testVerifyFirst, goOn))
			link, front := s.link(m), s.listen()
			resp, err := http.Get(front + link)
			close(goOn)
			if err != nil {
				t.Fatal(err)
			}
			defer http.DefaultClient.CloseIdleConnections()
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil || len(b) > len(plain)-holdBack {
				t.Errorf("%d bytes of %d, %v", len(b), len(plain), err)
			}
			if !strings.Contains(s.log.String(), `"cut":"hash"`) {
				t.Error(s.log)
			}
			wantStatus(t, s.get(link), 502)
			settled(s.server.cache)
		})
	}
}

func TestProxy17_BeforeTheHashHolds_TheLast64KiBAreNotGivenOut(t *testing.T) {
	const there = holdBack + 1000
	data := make([]byte, there)
	want := sha256.Sum256(data)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(data, headerSize); err != nil {
		t.Fatal(err)
	}
	sp := &spool{file: file, begun: true, written: there}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	f := &follower{spool: sp, ctx: ended, want: &want, held: holdBack}
	p := make([]byte, 2*there)
	if n, err := f.Read(p); n != 1000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := f.Read(p); n != 0 || err == nil { // it would wait, if its reader had not gone
		t.Errorf("%d bytes more", n)
	}
	sp.done, sp.header.sum = true, want
	if n, err := f.Read(p); n != holdBack || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := f.Read(p); err != io.EOF {
		t.Error(err)
	}
}

func TestProxy17_PartOfALargeDownload_IsGivenOfVerifiedBytesOnly(t *testing.T) {
	s := newStoredStage(t, decrypting, cached(t))
	m, plain := s.largeDownload()
	link := s.link(m)
	resp := s.get(link, "Range", "bytes=1000001-1000020")
	wantStatus(t, resp, 206)
	if b := bodyOf(t, resp); b != string(plain[1000001:1000021]) {
		t.Errorf("%q", b)
	}
	s.server.cache.discard(keyOf("example.org", "large", ""), "revoked")
	s.alter("large", len(plain)-1)
	goOn := make(chan struct{})
	s.hs.answerWith(slowly(s.body("large"), testVerifyFirst, goOn))
	time.AfterFunc(300*time.Millisecond, func() { close(goOn) }) // time enough for an answer that does not wait for all of the file
	wantStatus(t, s.get(link, "Range", "bytes=0-1"), 502)
}

func TestProxy17_EncryptedPage_IsADownloadAsAnyOther(t *testing.T) {
	s := newStoredStage(t, decrypting)
	resp := s.get(s.link(s.encrypted("page", "image/svg+xml", "a.svg", []byte("<svg><script>alert(1)</script></svg>"))))
	wantStatus(t, resp, 200)
	wantHeader(t, resp, "Content-Type", unknownType)
	wantHeader(t, resp, "Content-Disposition", `attachment; filename="a.svg"`)
}

// BenchmarkProxy18 serves an encrypted file from the cache, and beside it does to the same bytes what cannot be saved.
func BenchmarkProxy18(b *testing.B) {
	plain := make([]byte, 24<<20)
	s := newStoredStage(b, decrypting, cached(b))
	link := s.link(s.encrypted("secret", "application/x-thing", "a", plain))
	s.get(link)
	settled(s.server.cache)
	front := s.listen()
	b.Run("served", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			resp, err := http.Get(front + link)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); n != int64(len(plain)) {
				b.Fatal(n, err)
			}
			resp.Body.Close()
		}
	})
	http.DefaultClient.CloseIdleConnections()
	b.Run("fetched and served", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			s.server.cache.discard(keyOf("example.org", "secret", ""), "room")
			r := httptest.NewRequestWithContext(context.Background(), "GET", link, nil)
			s.server.ServeHTTP(discarded{http.Header{}}, r)
		}
	})
	b.Run("AES-CTR and SHA-256", func(b *testing.B) {
		_, decrypt, err := crypto.Attachments{}.Attachment(s.encrypted("x", "", "", nil).Encrypted)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			h := sha256.New()
			for at := 0; at < len(plain); at += chunk {
				h.Write(plain[at : at+chunk])
				decrypt(plain[at:at+chunk], int64(at))
			}
		}
	})
}

type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(p []byte) (int, error) { return len(p), nil }
func (d discarded) WriteHeader(int)             {}
