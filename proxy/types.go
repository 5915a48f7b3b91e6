package proxy

import (
	"bytes"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

const (
	inline     = "inline"
	attachment = "attachment"

	unknownType = "application/octet-stream"
	sniffSize   = 512
)

// matcher tells whether bytes begin as those of a type do.
type matcher func(head []byte) bool

// inlineTypes is the specification's list of types that are safe to show (client-server API, "Serving inline content"), each with the beginning its bytes
// must have. Whatever is not here is a download.
var inlineTypes = map[string]matcher{
	"text/css":            isText,
	"text/plain":          isText,
	"text/csv":            isText,
	"application/json":    isText,
	"application/ld+json": isText,
	"image/jpeg":          begins("\xff\xd8\xff"),
	"image/gif":           begins("GIF87a", "GIF89a"),
	"image/png":           begins("\x89PNG\r\n\x1a\n"),
	"image/apng":          begins("\x89PNG\r\n\x1a\n"),
	"image/webp":          riff("WEBP"),
	"image/avif":          isAVIF,
	"video/mp4":           isMP4,
	"video/webm":          begins("\x1a\x45\xdf\xa3"),
	"video/ogg":           begins("OggS"),
	"video/quicktime":     isQuickTime,
	"audio/mp4":           isMP4,
	"audio/webm":          begins("\x1a\x45\xdf\xa3"),
	"audio/aac":           isAAC,
	"audio/mpeg":          isMPEGAudio,
	"audio/ogg":           begins("OggS"),
	"audio/wave":          riff("WAVE"),
	"audio/wav":           riff("WAVE"),
	"audio/x-wav":         riff("WAVE"),
	"audio/x-pn-wav":      riff("WAVE"),
	"audio/flac":          begins("fLaC"),
	"audio/x-flac":        begins("fLaC"),
}

// downloadTypes keep their name in a download, because it tells the reader's system which program opens them.
var downloadTypes = map[string]matcher{
	"application/pdf":  begins("%PDF-"),
	"application/zip":  begins("PK\x03\x04"),
	"application/gzip": begins("\x1f\x8b"),
}

// typeAliases are names that clients use and no registry has.
var typeAliases = map[string]string{
	"image/jpg":   "image/jpeg",
	"image/pjpeg": "image/jpeg",
	"image/x-png": "image/png",
	"audio/mp3":   "audio/mpeg",
	"audio/x-m4a": "audio/mp4",
	"audio/m4a":   "audio/mp4",
}

// baseType is the type without its parameters, in its registered name; "" when it is none.
func baseType(declared string) string {
	t, _, err := mime.ParseMediaType(declared)
	if err != nil || !strings.Contains(t, "/") || len(t) > 100 {
		return ""
	}
	if alias, ok := typeAliases[t]; ok {
		return alias
	}
	return t
}

// mayInline tells whether a declared type is on the safe list, before any byte was seen.
func mayInline(declared string) bool {
	_, ok := inlineTypes[baseType(declared)]
	return ok
}

// settleType decides what an answer says of its bytes: the declared type only where the bytes agree, inline only where the type is safe.
func settleType(declared string, head []byte) (contentType, disposition string) {
	t := baseType(declared)
	if agrees := inlineTypes[t]; agrees != nil && agrees(head) {
		if strings.HasPrefix(t, "text/") {
			return t + "; charset=utf-8", inline
		}
		return t, inline
	}
	if agrees := downloadTypes[t]; agrees != nil && agrees(head) {
		return t, attachment
	}
	return unknownType, attachment
}

func begins(prefixes ...string) matcher {
	return func(head []byte) bool {
		for _, p := range prefixes {
			if bytes.HasPrefix(head, []byte(p)) {
				return true
			}
		}
		return false
	}
}

func riff(form string) matcher {
	return func(head []byte) bool {
		return len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == form
	}
}

// isText refuses what a browser could take for markup, and what is not UTF-8, because that is what the answer says it is.
func isText(head []byte) bool {
	if !strings.HasPrefix(http.DetectContentType(head), "text/plain") {
		return false
	}
	// The last character may be cut at the end of head.
	for i := 0; i < utf8.UTFMax && len(head) > 0; i++ {
		if utf8.Valid(head) {
			return true
		}
		head = head[:len(head)-1]
	}
	return utf8.Valid(head)
}

// ftyp is the major brand of an ISO base media file (ISO/IEC 14496-12); "" when the bytes are not one.
func ftyp(head []byte) string {
	if len(head) < 12 || string(head[4:8]) != "ftyp" {
		return ""
	}
	return string(head[8:12])
}

func isAVIF(head []byte) bool { b := ftyp(head); return b == "avif" || b == "avis" }

func isMP4(head []byte) bool {
	switch ftyp(head) {
	case "", "avif", "avis", "heic", "heix", "mif1", "msf1":
		return false
	}
	return true
}

func isQuickTime(head []byte) bool {
	if isMP4(head) {
		return true
	}
	if len(head) < 8 { // files older than ftyp
		return false
	}
	switch string(head[4:8]) {
	case "moov", "mdat", "wide", "free", "skip", "pnot":
		return true
	}
	return false
}

// isAAC looks for an ADTS or ADIF header.
func isAAC(head []byte) bool {
	return len(head) >= 2 && head[0] == 0xff && head[1]&0xf6 == 0xf0 || bytes.HasPrefix(head, []byte("ADIF"))
}

// isMPEGAudio looks for an ID3 tag, or for a frame header with a layer.
func isMPEGAudio(head []byte) bool {
	return bytes.HasPrefix(head, []byte("ID3")) ||
		len(head) >= 2 && head[0] == 0xff && head[1]&0xe0 == 0xe0 && head[1]&0x06 != 0
}
