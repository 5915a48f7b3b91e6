package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

var smallPNG = []byte("\x89PNG\r\n\x1a\n small")

// small makes the link to a short link's picture in a size. It has no host.
func (s *stage) small(link, size string) string {
	s.tb.Helper()
	c, _ := parse(s.tb, link)
	path, ok := s.signer.keys.path(&claims{purpose: thumbnailAt(size).purpose, record: c.record}, "photo.png")
	if !ok {
		s.tb.Fatal("no key")
	}
	return path
}

func (h *homeserver) asks(path string) (n int) {
	for _, r := range h.requests() {
		if strings.HasPrefix(r.URL.Path, path) {
			n++
		}
	}
	return n
}

func TestProxy22_Thumbnail_ComesFromTheHomeserverInTheAllowedSizes(t *testing.T) {
	s := newStoredStage(t, cached(t))
	s.hs.put("photo 320x240", "image/png", string(smallPNG))
	s.hs.put("photo 800x600", "image/jpeg", "\xff\xd8\xff larger")
	whole := s.link(mediaOf("photo", "image/webp", "photo.webp")) // the thumbnail's type is the homeserver's
	for size, want := range map[string]struct{ mime, body string }{"t320": {"image/png", string(smallPNG)}, "t800": {"image/jpeg", "\xff\xd8\xff larger"}} {
		link := s.small(whole, size)
		for range 2 {
			resp := s.get(link)
			wantStatus(t, resp, 200)
			wantHeader(t, resp, "Content-Type", want.mime)
			wantHeader(t, resp, "Cache-Control", "private, max-age=3600")
			if resp.Header.Get("ETag") == s.get(whole).Header.Get("ETag") {
				t.Error("the thumbnail has the ETag of the file")
			}
			if got := bodyOf(t, resp); got != want.body {
				t.Errorf("%s is %q", size, got)
			}
			settled(s.server.cache)
		}
		head := s.do(http.MethodHead, link)
		wantHeader(t, head, "Content-Type", want.mime)
	}
	if n := s.hs.asks(thumbnails.authenticated); n != 2 {
		t.Errorf("the homeserver was asked for %d thumbnails, want one of each size", n)
	}
	for _, r := range s.hs.requests() {
		if strings.HasPrefix(r.URL.Path, thumbnails.authenticated) && r.URL.RawQuery != "animated=false&height=240&method=scale&width=320" &&
			r.URL.RawQuery != "animated=false&height=600&method=scale&width=800" {
			t.Errorf("it was asked for %s", r.URL.RawQuery)
		}
	}
}

func TestProxy22_Thumbnail_Head_TellsOfTheThumbnail(t *testing.T) {
	s := newStoredStage(t)
	s.hs.put("photo", "image/heic", "what no browser shows")
	s.hs.put("photo 320x240", "image/png", string(smallPNG))
	small := s.small(s.link(mediaOf("photo", "image/heic", "photo.heic")), "t320")
	get, head := s.get(small), s.do(http.MethodHead, small)
	for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Content-Disposition"} {
		wantHeader(t, head, name, get.Header.Get(name))
	}
}

func TestProxy22_Thumbnail_LinkToOneSize_OpensNoOtherAndNotTheFile(t *testing.T) {
	s := newStoredStage(t)
	s.hs.put("photo 320x240", "image/png", string(smallPNG))
	whole := s.link(photo())
	small := s.small(whole, "t320")
	wantStatus(t, s.get(small), 200)
	for name, link := range map[string]string{
		"another size":          strings.Replace(small, "/t320/", "/t800/", 1),
		"the file":              strings.Replace(small, "/t320/", "/", 1),
		"the file's as a small": strings.Replace(whole, "/m/", "/m/t320/", 1),
		"the file's as a large": strings.Replace(whole, "/m/", "/m/t800/", 1),
		"a size of one's own":   strings.Replace(small, "/t320/", "/t4000/", 1),
	} {
		before := len(s.hs.requests())
		if resp := s.get(link); resp.StatusCode != 404 {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if len(s.hs.requests()) != before {
			t.Errorf("%s: the homeserver was asked", name)
		}
	}
}

func TestProxy22_Thumbnail_WhatTheHomeserverMakesNoneOf_IsShownWhole(t *testing.T) {
	for name, status := range map[string]int{"not found": 404, "bad request": 400, "too large": 413, "error": 500} {
		t.Run(name, func(t *testing.T) {
			s := newStoredStage(t)
			s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, thumbnails.authenticated) {
					matrixError(w, status, "M_UNKNOWN")
					return
				}
				s.hs.answer(w, r)
			})
			resp := s.get(s.small(s.link(photo()), "t320"))
			wantStatus(t, resp, 200)
			wantHeader(t, resp, "Content-Type", "image/png")
			if bodyOf(t, resp) != string(png) {
				t.Error("not the file")
			}
		})
	}
	s := newStoredStage(t)
	small := s.small(s.link(photo()), "t320")
	for status, want := range map[int]int{401: 502, 403: 502, 429: 503} {
		s.hs.answerWith(func(w http.ResponseWriter, _ *http.Request) { matrixError(w, status, "M_FORBIDDEN") })
		wantStatus(t, s.get(small), want)
	}
}

func TestProxy22_Thumbnail_OldHomeserver_IsAskedOnItsLegacyPath(t *testing.T) {
	s := newStoredStage(t)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, thumbnails.legacy) {
			matrixError(w, 404, "M_UNRECOGNIZED")
			return
		}
		w.Header().Set("Content-Type", "image/png")
		w.Write(smallPNG)
	})
	if got := bodyOf(t, s.get(s.small(s.link(photo()), "t320"))); got != string(smallPNG) {
		t.Errorf("got %q", got)
	}
}

func TestProxy22_Thumbnail_RedactionAndRevocation_EmptyTheCacheOfEverySize(t *testing.T) {
	for name, end := range map[string]func(tx store.MediaTx) error{
		"redaction": func(tx store.MediaTx) error { _, err := tx.RevokeMedia("!room:example.org", "$event"); return err },
		"room": func(tx store.MediaTx) error {
			_, err := tx.RevokeLinks(store.MediaScope{Room: "!room:example.org"})
			return err
		},
		"file": func(tx store.MediaTx) error {
			_, err := tx.RevokeLinks(store.MediaScope{Server: "example.org", Media: "photo"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStoredStage(t, cached(t))
			s.hs.put("photo 320x240", "image/png", string(smallPNG))
			s.hs.put("photo 800x600", "image/png", string(smallPNG))
			whole := s.link(photo())
			links := []string{whole, s.small(whole, "t320"), s.small(whole, "t800")}
			for _, link := range links {
				wantStatus(t, s.get(link), 200)
			}
			settled(s.server.cache)
			if n := len(s.server.cache.objects); n != 3 {
				t.Fatalf("the cache has %d files", n)
			}
			s.clock.Advance(1e6)
			if err := s.store.ChangeMedia(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			until(t, "the cache is empty", s.server.cache.isEmpty)
			for _, link := range links {
				wantStatus(t, s.get(link), 410)
			}
		})
	}
}

func TestProxy22_EncryptedPicture_ShowsItsSendersThumbnailOrItself(t *testing.T) {
	s := newStoredStage(t, decrypting, cached(t))
	with := s.encrypted("secret", "image/png", "photo.png", png)
	thumb := s.encrypted("secretthumb", "", "", smallPNG)
	with.Thumbnail, with.ThumbnailMIME = thumb.Encrypted, "image/png"
	with.Thumbnail.URL = "mxc://example.org/secretthumb"
	link := s.link(with)
	small := s.small(link, "t320")
	resp := s.get(small)
	wantStatus(t, resp, 200)
	wantHeader(t, resp, "Content-Type", "image/png")
	if got := bodyOf(t, resp); got != string(smallPNG) {
		t.Errorf("the thumbnail is %q", got)
	}
	if got := bodyOf(t, s.get(link)); got != string(png) {
		t.Error("the link opens something else than the picture")
	}
	without := s.encrypted("plainsecret", "image/png", "photo.png", png)
	without.Event = "$other"
	if got := bodyOf(t, s.get(s.small(s.link(without), "t320"))); got != string(png) {
		t.Error("a picture without a thumbnail is not shown as a whole")
	}
	if n := s.hs.asks(thumbnails.authenticated); n != 0 {
		t.Error("the homeserver was asked for a thumbnail of what it cannot read")
	}
	settled(s.server.cache)
	for _, sc := range []store.MediaScope{{Server: "example.org", Media: "secret"}, {Server: "example.org", Media: "plainsecret"}} {
		if err := s.store.ChangeMedia(t.Context(), func(tx store.MediaTx) error { _, err := tx.RevokeLinks(sc); return err }); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the cache is empty", s.server.cache.isEmpty)
	s.alter("secretthumb", 3)
	with.Event = "$again"
	wantStatus(t, s.get(s.small(s.link(with), "t320")), 502)
}
