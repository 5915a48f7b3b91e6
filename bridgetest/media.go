package bridgetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mediaFile is uploaded media, or a promise of it (MSC2246).
type mediaFile struct {
	owner   string
	present bool
	mime    string
	name    string
	data    []byte
}

func (hs *Homeserver) getMediaConfig(*call) (any, error) {
	return map[string]any{"m.upload.size": hs.opts.MaxUpload}, nil
}

// maxBody is what Synapse takes of any request, in bytes: as much as 200 events may have.
const maxBody = 200 * 65536

// readUpload reads a body. One that is too large for Synapse to read at all ends the connection and is answered nothing.
func (hs *Homeserver) readUpload(c *call) ([]byte, bool, error) {
	if hs.traits.family == synapse && c.ContentLength > hs.opts.MaxUpload && c.ContentLength <= maxBody {
		_, _ = io.Copy(io.Discard, c.Body) // a client that still writes would see its connection reset, and no answer
		return nil, false, refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "Upload request body is too large")
	}
	if c.ContentLength <= hs.opts.MaxUpload {
		data, err := io.ReadAll(io.LimitReader(c.Body, hs.opts.MaxUpload+1))
		if err != nil {
			return nil, false, badRequest("M_UNKNOWN", "The upload broke off")
		}
		if int64(len(data)) <= hs.opts.MaxUpload {
			return data, true, nil
		}
	}
	c.written = true
	reset(c.ResponseWriter)
	return nil, false, nil
}

func (hs *Homeserver) postUpload(c *call) (any, error) {
	data, fits, err := hs.readUpload(c)
	if !fits {
		return nil, err
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	id := hs.newMediaID(data)
	f := &mediaFile{owner: c.user()}
	f.fill(c, data)
	hs.media[id] = f
	return map[string]any{"content_uri": "mxc://" + hs.opts.ServerName + "/" + id}, nil
}

// newMediaID is made up; Dendrite's is a hash, so that the same file twice is one.
func (hs *Homeserver) newMediaID(data []byte) string {
	if hs.traits.family == dendrite {
		return fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return randomLetters(24, letters)
}

func (f *mediaFile) fill(c *call, data []byte) {
	f.present, f.data, f.mime, f.name = true, data, c.Request.Header.Get("Content-Type"), c.param("filename")
	if f.mime == "" {
		f.mime = "application/octet-stream"
	}
}

func (hs *Homeserver) postCreateMedia(c *call) (any, error) {
	id := randomLetters(24, letters)
	hs.media[id] = &mediaFile{owner: c.user()}
	return map[string]any{
		"content_uri": "mxc://" + hs.opts.ServerName + "/" + id, "unused_expires_at": hs.now() + (24 * time.Hour).Milliseconds(),
	}, nil
}

func (hs *Homeserver) putUpload(c *call) (any, error) {
	data, fits, err := hs.readUpload(c)
	if !fits {
		return nil, err
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	f := hs.media[c.vars["media"]]
	switch {
	case f == nil || c.vars["server"] != hs.opts.ServerName:
		return nil, notFound("Unknown media ID")
	case f.owner != c.user():
		return nil, forbidden("Only the creator of the media ID can upload to it")
	case f.present:
		return nil, refuse(http.StatusConflict, "M_CANNOT_OVERWRITE_MEDIA", "Media ID already has content")
	}
	f.fill(c, data)
	hs.notify()
	return struct{}{}, nil
}

// findMedia waits for media that is promised, as long as the client wants (timeout_ms, 20 s).
func (hs *Homeserver) findMedia(c *call) (*mediaFile, error) {
	if c.vars["server"] != hs.opts.ServerName {
		return nil, forbidden("Federation denied with %s.", c.vars["server"])
	}
	timeout := 20 * time.Second
	if ms, err := strconv.ParseInt(c.param("timeout_ms"), 10, 64); err == nil {
		timeout = min(time.Duration(ms)*time.Millisecond, time.Minute)
	}
	ctx, cancel := context.WithTimeout(c.Context(), timeout)
	defer cancel()
	for {
		hs.mu.Lock()
		f := hs.media[c.vars["media"]]
		present, changed := f != nil && f.present, hs.changed
		hs.mu.Unlock()
		switch {
		case present:
			return f, nil // filled media never changes again
		case f == nil:
			return nil, notFound("Not found '%s'", c.URL.Path)
		case hs.await(ctx, changed) != nil:
			return nil, refuse(http.StatusGatewayTimeout, "M_NOT_YET_UPLOADED", "Media has not been uploaded yet")
		}
	}
}

func (hs *Homeserver) getDownload(c *call) (any, error) {
	f, err := hs.findMedia(c)
	if err != nil {
		return nil, err
	}
	name := f.name
	if n := c.vars["name"]; n != "" {
		name = n
	}
	c.ResponseWriter.Header().Set("Content-Disposition", disposition(f.mime, name))
	c.ResponseWriter.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; media-src 'self'; object-src 'self';")
	hs.writeMedia(c, f.mime, f.data)
	return nil, nil
}

// writeMedia heeds If-None-Match and HEAD, and ignores Range, as Synapse does.
func (hs *Homeserver) writeMedia(c *call, mime string, data []byte) {
	c.written = true
	h := c.ResponseWriter.Header()
	hs.traits.sign(h)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "public,max-age=86400,s-maxage=0,proxy-revalidate")
	h.Set("ETag", "1")
	if c.Request.Header.Get("If-None-Match") == "1" {
		h.Del("Content-Disposition")
		c.WriteHeader(http.StatusNotModified)
		return
	}
	if slices.Contains(textTypes, strings.ToLower(mime)) {
		mime += "; charset=UTF-8"
	}
	h.Set("Content-Type", mime)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("X-Robots-Tag", "noindex, nofollow, noarchive, noimageindex")
	c.WriteHeader(http.StatusOK)
	if c.Method != http.MethodHead {
		_, _ = c.ResponseWriter.Write(data)
	}
}

// textTypes are those that Synapse adds its character set to.
var textTypes = []string{
	"text/css", "text/csv", "text/html", "text/calendar", "text/plain", "text/javascript", "application/json",
	"application/ld+json", "application/rtf", "image/svg+xml", "text/xml",
}

// inlineTypes are what a browser may show by itself; everything else is to be saved.
var inlineTypes = []string{
	"text/css", "text/plain", "text/csv", "application/json", "application/ld+json", "image/jpeg", "image/gif", "image/png",
	"image/apng", "image/webp", "image/avif", "video/mp4", "video/webm", "video/ogg", "video/quicktime", "audio/mp4",
	"audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav", "audio/x-wav", "audio/x-pn-wav",
	"audio/flac", "audio/x-flac",
}

func disposition(mime, name string) string {
	kind := "attachment"
	base, _, _ := strings.Cut(mime, ";")
	if slices.Contains(inlineTypes, strings.TrimSpace(base)) {
		kind = "inline"
	}
	if name == "" {
		return kind
	}
	for _, r := range name {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"\;,()<>@:/[]?={}%`, r) {
			return kind + "; filename*=utf-8''" + quote(name)
		}
	}
	return kind + "; filename=" + name
}

// size is a length in pixels of a request.
func (c *call) size(name string) (int, error) {
	if !c.URL.Query().Has(name) {
		return 0, badRequest("M_MISSING_PARAM", "Missing integer query parameter '%s'", name)
	}
	n, err := strconv.Atoi(c.param(name))
	if err != nil || n <= 0 {
		return 0, badRequest("M_INVALID_PARAM", "Query parameter '%s' must be an integer", name)
	}
	return n, nil
}

func (hs *Homeserver) getThumbnail(c *call) (any, error) {
	f, err := hs.findMedia(c)
	if err != nil {
		return nil, err
	}
	width, err := c.size("width")
	if err != nil {
		return nil, err
	}
	height, err := c.size("height")
	if err != nil {
		return nil, err
	}
	mime, data, err := thumbnail(f.data, width, height)
	if err != nil {
		return nil, badRequest("M_UNKNOWN", "Cannot find any thumbnails for the requested media ('%s').", c.URL.Path)
	}
	c.ResponseWriter.Header().Set("Content-Disposition", "inline")
	hs.writeMedia(c, mime, data)
	return nil, nil
}

// getLegacyMedia refuses, with a token and without: new media is not served without authentication. Dendrite serves it.
func (hs *Homeserver) getLegacyMedia(c *call) (any, error) {
	if !hs.traits.legacyMedia {
		return nil, notFound("Not found")
	}
	if strings.HasPrefix(c.URL.Path, "/_matrix/media/v3/thumbnail/") {
		return hs.getThumbnail(c)
	}
	return hs.getDownload(c)
}
