package proxy

import (
	"strings"
	"testing"
)

func TestProxy12_Types_OnlySafeTypesWhoseBytesAgree_AreShown(t *testing.T) {
	const (
		html = "<!DOCTYPE html><script>alert(1)</script>"
		svg  = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
		jpeg = "\xff\xd8\xff\xe0\x00\x10JFIF"
		mp4  = "\x00\x00\x00\x18ftypmp42"
	)
	for _, c := range []struct{ declared, head, contentType, disposition string }{
		{"image/png", string(png), "image/png", inline},
		{"IMAGE/PNG; x=y", string(png), "image/png", inline},
		{"image/jpg", jpeg, "image/jpeg", inline},
		{"image/png", jpeg, unknownType, attachment},
		{"image/png", html, unknownType, attachment},
		{"image/png", svg, unknownType, attachment},
		{"image/png", "", unknownType, attachment},
		{"image/svg+xml", svg, unknownType, attachment},
		{"text/html", html, unknownType, attachment},
		{"text/html", "plain", unknownType, attachment},
		{"text/xml", "<?xml version='1.0'?>", unknownType, attachment},
		{"application/xhtml+xml", html, unknownType, attachment},
		{"text/javascript", "alert(1)", unknownType, attachment},
		{"text/plain", "hello", "text/plain; charset=utf-8", inline},
		{"text/plain", strings.Repeat("a", 511) + "\xc3", "text/plain; charset=utf-8", inline},
		{"text/plain", "caf\xe9 noir", unknownType, attachment},
		{"text/plain", html, unknownType, attachment},
		{"text/plain", "\n  " + html, unknownType, attachment},
		{"text/plain", "\x00\x01\x02", unknownType, attachment},
		{"application/json", `{"a":1}`, "application/json", inline},
		{"application/pdf", "%PDF-1.7", "application/pdf", attachment},
		{"application/pdf", html, unknownType, attachment},
		{"video/mp4", mp4, "video/mp4", inline},
		{"audio/mp4", mp4, "audio/mp4", inline},
		{"video/mp4", "\x00\x00\x00\x18ftypheic", unknownType, attachment},
		{"video/quicktime", "\x00\x00\x00\x18moov....", "video/quicktime", inline},
		{"image/avif", "\x00\x00\x00\x18ftypavif", "image/avif", inline},
		{"image/webp", "RIFF\x00\x00\x00\x00WEBP", "image/webp", inline},
		{"audio/wav", "RIFF\x00\x00\x00\x00WAVE", "audio/wav", inline},
		{"audio/wav", "RIFF\x00\x00\x00\x00WEBP", unknownType, attachment},
		{"audio/ogg", "OggS\x00", "audio/ogg", inline},
		{"audio/mpeg", "ID3\x04", "audio/mpeg", inline},
		{"audio/mpeg", "\xff\xfb\x90", "audio/mpeg", inline},
		{"audio/aac", "\xff\xf1\x50", "audio/aac", inline},
		{"audio/flac", "fLaC", "audio/flac", inline},
		{"video/webm", "\x1a\x45\xdf\xa3", "video/webm", inline},
		{"", string(png), unknownType, attachment},
		{"nonsense", string(png), unknownType, attachment},
		{"image/png\r\nX: y", string(png), unknownType, attachment},
	} {
		contentType, disposition := settleType(c.declared, []byte(c.head))
		if contentType != c.contentType || disposition != c.disposition {
			t.Errorf("%q beginning %.20q: %s, %s; want %s, %s", c.declared, c.head, contentType, disposition, c.contentType, c.disposition)
		}
	}
}

func TestProxy12_Server_SVGAndHTML_AreDownloadsWhateverTheyAreDeclared(t *testing.T) {
	s := newStage(t)
	bodies := map[string]string{
		"svg":  `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`,
		"html": "<html><body><script>alert(1)</script></body></html>",
	}
	for id, body := range bodies {
		for _, upstream := range []string{"image/svg+xml", "text/html", "image/png", "text/plain", "application/octet-stream", ""} {
			s.hs.put(id, upstream, body)
			for _, declared := range []string{"image/svg+xml", "text/html", "image/png", ""} {
				resp := s.get(s.link(mediaOf(id, declared, "x."+id)))
				wantStatus(t, resp, 200)
				wantHeader(t, resp, "Content-Type", unknownType)
				wantHeader(t, resp, "Content-Disposition", `attachment; filename="x.`+id+`"`)
				wantHeader(t, resp, "Content-Security-Policy", "sandbox; default-src 'none'")
			}
		}
	}
}

func TestProxy12_Server_TypeNotDeclared_IsTheHomeservers(t *testing.T) {
	s := newStage(t)
	resp := s.get(s.link(mediaOf("photo", "", "x")))
	wantHeader(t, resp, "Content-Type", "image/png")
	wantHeader(t, resp, "Content-Disposition", `inline; filename="x"`)
}

func TestProxy12_Server_Film_MayPlayInItsOwnPage(t *testing.T) {
	s := newStage(t)
	s.hs.put("film", "video/mp4", "\x00\x00\x00\x18ftypmp42....")
	resp := s.get(s.link(mediaOf("film", "video/mp4", "film.mp4")))
	wantHeader(t, resp, "Content-Security-Policy", "sandbox; default-src 'none'; media-src 'self'")
	wantHeader(t, resp, "Content-Type", "video/mp4")
}

func TestProxy12_Server_LinkSignedAsADownload_IsOneWhateverTheType(t *testing.T) {
	s := newStage(t)
	link, err := s.signer.sign(&claims{
		purpose: purposeSelfContained, server: "example.org", mediaID: "photo", mime: "image/png", disposition: attachment, name: "a.png",
	}, "a.png")
	if err != nil {
		t.Fatal(err)
	}
	resp := s.get(strings.TrimPrefix(link, testPublic))
	wantHeader(t, resp, "Content-Type", "image/png")
	wantHeader(t, resp, "Content-Disposition", `attachment; filename="a.png"`)
}
