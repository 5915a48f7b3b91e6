package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fromStandardLibrary is what http.ServeContent answers for the same file and request.
func fromStandardLibrary(method string, body []byte, etag string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	w.Header().Set("ETag", etag)
	w.Header().Set("Content-Type", "image/png")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	return w.Result()
}

func TestProxy14_RangesAndConditions_AnswerAsTheStandardLibrary(t *testing.T) {
	for name, s := range map[string]*stage{"without a cache": newStage(t), "cached": newStage(t, cached(t))} {
		t.Run(name, func(t *testing.T) { s.tb = t; comparedWithTheStandardLibrary(t, s, s.link(photo())) })
	}
	t.Run("encrypted", func(t *testing.T) {
		s := newStoredStage(t, cached(t), decrypting)
		comparedWithTheStandardLibrary(t, s, s.link(s.encrypted("secret", "image/png", "photo.png", png)))
	})
	t.Run("encrypted without a cache", func(t *testing.T) {
		s := newStoredStage(t, decrypting)
		comparedWithTheStandardLibrary(t, s, s.link(s.encrypted("secret", "image/png", "photo.png", png)))
	})
}

func comparedWithTheStandardLibrary(t *testing.T, s *stage, link string) {
	etag := s.get(link).Header.Get("ETag")
	if len(etag) != 34 || etag[0] != '"' {
		t.Fatalf("the ETag is not strong: %s", etag)
	}
	size := len(png)
	ranges := []string{
		"", "bytes=0-0", "bytes=0-", "bytes=5-9", "bytes=-1", "bytes=-5", "bytes=-99999", "bytes=0-99999", "bytes=600-700", "bytes=511-513",
		fmt.Sprintf("bytes=%d-", size-1), fmt.Sprintf("bytes=%d-", size), "bytes=99999-", "bytes=5-4", "bytes=a-b", "bytes=", "bytes=-", "bytes=,", "bytes=0-1,",
		"bytes= 0-1", "bytes=0 - 1", "bytes=--1", "bytes=0x1-2", "bytes=99999999999999999999-", "bytes=0-99999999999999999999", "bytes",
	}
	conditions := [][]string{
		nil,
		{"If-None-Match", etag}, {"If-None-Match", "W/" + etag}, {"If-None-Match", `"other"`}, {"If-None-Match", `"other", ` + etag}, {"If-None-Match", "*"},
		{"If-None-Match", "bad"}, {"If-None-Match", `"open`}, {"If-None-Match", ""},
		{"If-Match", etag}, {"If-Match", "W/" + etag}, {"If-Match", `"other"`}, {"If-Match", "*"},
		{"If-Range", etag}, {"If-Range", "W/" + etag}, {"If-Range", `"other"`}, {"If-Range", "Wed, 21 Oct 2015 07:28:00 GMT"},
		{"If-Modified-Since", "Wed, 21 Oct 2099 07:28:00 GMT"}, {"If-Unmodified-Since", "Wed, 21 Oct 2015 07:28:00 GMT"},
		{"If-Match", etag, "If-None-Match", etag},
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, condition := range conditions {
			for _, rng := range ranges {
				header := append([]string{}, condition...)
				if rng != "" {
					header = append(header, "Range", rng)
				}
				t.Run(fmt.Sprintf("%s %q", method, header), func(t *testing.T) {
					got, want := s.do(method, link, header...), fromStandardLibrary(method, png, etag, header...)
					wantStatus(t, got, want.StatusCode)
					if want.StatusCode < 300 || want.StatusCode == http.StatusNotModified {
						wantHeader(t, got, "ETag", want.Header.Get("ETag"))
						wantHeader(t, got, "Content-Range", want.Header.Get("Content-Range"))
						wantHeader(t, got, "Content-Length", want.Header.Get("Content-Length"))
						wantHeader(t, got, "Accept-Ranges", want.Header.Get("Accept-Ranges"))
						wantHeader(t, got, "Content-Type", want.Header.Get("Content-Type"))
						if g, w := bodyOf(t, got), bodyOf(t, want); g != w {
							t.Errorf("body of %d bytes, want %d", len(g), len(w))
						}
					}
				})
			}
		}
	}
}

func TestProxy14_Range_Several_AreTheWholeFile(t *testing.T) {
	s := newStage(t)
	resp := s.get(s.link(photo()), "Range", "bytes=0-1,3-4")
	wantStatus(t, resp, 200)
	if bodyOf(t, resp) != string(png) {
		t.Error("not the whole file")
	}
}

func TestProxy14_Range_OfAnotherUnit_IsIgnored(t *testing.T) {
	if _, v := parseRange("lines=1-2", 100); v != rangeNone {
		t.Error("RFC 9110, 14.2: a unit that is not understood is ignored")
	}
}

func TestProxy14_Range_WithASign_IsUnsatisfiable(t *testing.T) {
	if _, v := parseRange("bytes=+1-2", 100); v != rangeUnmet {
		t.Error("RFC 9110, 14.1.1: positions are digits")
	}
}

func TestProxy14_Range_OfTheLastZeroBytes_IsUnsatisfiable(t *testing.T) {
	if _, v := parseRange("bytes=-0", 100); v != rangeUnmet {
		t.Error("RFC 9110, 14.1.2: a suffix of no length is unsatisfiable")
	}
}

func TestProxy14_Range_OfAnEmptyFile_IsTheEmptyFile(t *testing.T) {
	s := newStage(t)
	s.hs.put("empty", "text/plain", "")
	for _, rng := range []string{"bytes=0-", "bytes=0-5", "bytes=-1"} {
		resp := s.get(s.link(mediaOf("empty", "text/plain", "a.txt")), "Range", rng)
		wantStatus(t, resp, 200)
		wantHeader(t, resp, "Content-Length", "0")
	}
}

func TestProxy14_Range_Unsatisfiable_NamesTheLength(t *testing.T) {
	s := newStage(t)
	resp := s.get(s.link(photo()), "Range", "bytes=99999-")
	wantStatus(t, resp, 416)
	wantHeader(t, resp, "Content-Range", fmt.Sprintf("bytes */%d", len(png)))
	wantHeader(t, resp, "Cache-Control", "no-store")
}

func TestProxy14_Range_LengthUnknown_IsTheWholeFile(t *testing.T) {
	s := newStage(t)
	body := string(png) + strings.Repeat("x", 100_000)
	s.hs.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(body[:1000]))
		w.(http.Flusher).Flush()
		io.WriteString(w, body[1000:])
	})
	resp := s.get(s.link(photo()), "Range", "bytes=0-5")
	wantStatus(t, resp, 200)
	wantHeader(t, resp, "Accept-Ranges", "")
	if bodyOf(t, resp) != body {
		t.Error("not the whole file")
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=0-1,2-3", "bytes= , 1-2 ,", "lines=1-2", "bytes=9-3", "bytes=-0", "Bytes=1-2", "bytes=99999999999999999999-"} {
		f.Add(s, int64(10))
	}
	f.Add("bytes=0-", int64(0))
	f.Add("bytes=1-0", int64(0))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 || size > 1<<20 {
			return
		}
		part, verdict := parseRange(header, size)
		if verdict == rangeOne && (part.start < 0 || part.length <= 0 || part.start+part.length > size) {
			t.Fatalf("%q of %d bytes: %+v", header, size, part)
		}
		unit, list, _ := strings.Cut(header, "=")
		if unit != "bytes" || strings.Contains(list, ",") || strings.ContainsAny(header, "\r\n\x00+") || strings.TrimSpace(header) != header {
			return // where we differ on purpose
		}
		if strings.HasPrefix(strings.Trim(list, " \t"), "-") && (size == 0 || strings.Trim(list, " \t-0") == "") {
			return // a suffix of nothing: the standard library answers 206 with a part that ends before it begins
		}
		want := fromStandardLibrary(http.MethodGet, make([]byte, size), `"x"`, "Range", header)
		got := map[rangeVerdict]int{rangeNone: 200, rangeOne: 206, rangeUnmet: 416}[verdict]
		if got != want.StatusCode {
			t.Fatalf("%q of %d bytes: %d, and the standard library says %d", header, size, got, want.StatusCode)
		}
		if verdict == rangeOne {
			if cr := fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, size); cr != want.Header.Get("Content-Range") {
				t.Fatalf("%q of %d bytes: %s, and the standard library says %s", header, size, cr, want.Header.Get("Content-Range"))
			}
		}
	})
}

// Large files in the cache are handed to the kernel, which has to begin at the right byte.
func TestProxy14_Range_OfALargeFileInTheCache_IsThatPart(t *testing.T) {
	s := newStage(t, cached(t))
	var b strings.Builder
	b.WriteString(string(png[:8]))
	for n := 0; b.Len() < 5*chunk; n++ {
		fmt.Fprint(&b, n, " ")
	}
	body := b.String()
	s.hs.put("large", "image/png", body)
	link := s.listen() + s.link(mediaOf("large", "image/png", "large.png"))
	if got := bodyOf(t, open(t, link, "")); got != body {
		t.Fatalf("the fetch gives %d bytes of %d", len(got), len(body))
	}
	settled(s.server.cache)
	for _, part := range []struct{ header, want string }{
		{"", body},
		{"bytes=0-0", body[:1]},
		{"bytes=100-", body[100:]},
		{"bytes=65535-65537", body[65535:65538]},
		{"bytes=200000-299999", body[200000:300000]},
		{"bytes=-7", body[len(body)-7:]},
	} {
		resp := open(t, link, part.header)
		if got := bodyOf(t, resp); got != part.want || resp.ContentLength != int64(len(part.want)) {
			t.Errorf("%q gives %d bytes of %d, or others", part.header, len(got), len(part.want))
		}
	}
	if n := len(s.hs.requests()); n != 1 {
		t.Errorf("the homeserver was asked %d times", n)
	}
}

func open(t *testing.T, link, ranges string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, link, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
