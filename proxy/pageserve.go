package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/trestle-bridge/trestle/store"
)

// servePage answers with a page, as HTML to whoever asks for that and as plain text to others. It is made anew each time, so that an edit shows at once.
func (s *Server) servePage(ctx context.Context, x *exchange, t *target) {
	ctx, end := s.follow(ctx, x, t) // before it is read: what is deleted from now on is cut off
	defer end()
	stored, err := s.links.MediaPage(ctx, t.link.ID)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(context.Cause(ctx), errRevoked): // its message was redacted a moment ago, or its time is over
		x.refuse(http.StatusGone, errRevoked)
		return
	case err != nil:
		x.refuse(http.StatusServiceUnavailable, err)
		return
	}
	var body pageBody
	if err := json.Unmarshal(stored.Body, &body); err != nil {
		x.refuse(http.StatusInternalServerError, fmt.Errorf("read the page of record %d: %w", t.link.ID, err))
		return
	}
	view, ok := s.viewPage(x, t, stored, &body)
	if !ok {
		x.refuse(http.StatusNotFound, nil)
		return
	}
	var page bytes.Buffer
	contentType, render := "text/plain; charset=utf-8", view.plain
	if prefersHTML(x.r.Header.Values("Accept")) {
		contentType, render = "text/html; charset=utf-8", view.html
	}
	if err := render(&page); err != nil {
		x.refuse(http.StatusInternalServerError, fmt.Errorf("write the page of record %d: %w", t.link.ID, err))
		return
	}
	h := x.w.Header()
	sum := sha256.Sum256(append([]byte(contentType), page.Bytes()...))
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h.Set("Vary", "Accept")
	if status := precondition(x.r.Header, etag); status == http.StatusPreconditionFailed {
		x.refuse(status, nil)
		return
	} else if status != 0 {
		h.Set("ETag", etag)
		h.Set("Cache-Control", pageFreshness)
		x.begin(status)
		return
	}
	h.Set("ETag", etag)
	h.Set("Cache-Control", pageFreshness)
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(page.Len()))
	h.Set("Content-Security-Policy", pagePolicy)
	x.begin(http.StatusOK)
	if x.r.Method == http.MethodHead {
		return
	}
	for page.Len() > 0 {
		if err := s.send(ctx, x, t, page.Next(chunk)); err != nil {
			x.cause = x.cutAt(ctx, err, "reader", "send to the reader")
			x.abort()
		}
	}
}

// pageFreshness has a browser ask each time, which costs a page hardly anything: what was edited or deleted is not shown from its memory.
const pageFreshness = "private, no-cache"

// viewPage signs the links of a page. Those of the page itself are relative, so that they work under whatever host and path the page was opened;
// previews need absolute ones. All have the key that the page was opened with: a leaked one would otherwise, until it is retired, make links that outlive it.
// ok is false where that was retired meanwhile.
func (s *Server) viewPage(x *exchange, t *target, stored *store.MediaPage, body *pageBody) (*pageView, bool) {
	up := strings.Repeat("../", strings.Count(strings.TrimPrefix(x.r.URL.EscapedPath(), shortPrefix), "/"))
	v := &pageView{
		Author: body.Author, Text: body.Text, Excerpt: excerpt(body.Text),
		Footer: footer(stored.Written, t.expires, body.Edited),
	}
	if v.Author == "" {
		v.Author = "Message"
	}
	if v.Title = v.Author; len(body.Files) > 0 {
		v.Title += ": " + strconv.Itoa(len(body.Files)) + " files"
	}
	link := func(p purpose, record int64, name string) (string, bool) {
		return s.keys.pathBy(&claims{purpose: p, record: record, key: x.link.key}, name)
	}
	if s.public != "" {
		address, ok := link(purposeShort, t.link.ID, t.name)
		if !ok {
			return nil, false
		}
		v.Address = s.public + address
	}
	for i := range body.Files {
		f := &body.Files[i]
		name := cleanName(f.Name)
		display := displayName(name)
		address, ok := link(purposeShort, f.Record, display)
		if !ok {
			return nil, false
		}
		if name == "" {
			name = "file " + strconv.Itoa(i+1)
		}
		file := fileView{Link: up + strings.TrimPrefix(address, shortPrefix), Name: name, Facts: f.facts(), absolute: s.public + address}
		if f.isPicture() {
			small, _ := link(thumbnailSizes[0].purpose, f.Record, display)
			large, _ := link(thumbnailSizes[1].purpose, f.Record, display)
			file.Small, file.Large = up+strings.TrimPrefix(small, shortPrefix), up+strings.TrimPrefix(large, shortPrefix)
			if f.Width > 0 && f.Height > 0 && f.Width < 1<<16 && f.Height < 1<<16 {
				file.Width, file.Height = f.Width, f.Height
			}
			if v.Picture == "" && s.public != "" {
				v.Picture = s.public + large
			}
		}
		v.Files = append(v.Files, file)
	}
	return v, true
}

// prefersHTML reads Accept (RFC 9110, section 12.5.1): HTML is for whoever names it, and does not like plain text better. `*/*`, which is what curl says, is no
// wish for HTML.
func prefersHTML(accept []string) bool {
	html, plain := -1.0, -1.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		weight := &html
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "text/html", "application/xhtml+xml":
		case "text/plain":
			weight = &plain
		default:
			continue
		}
		q := 1.0
		for param := range strings.SplitSeq(params, ";") {
			key, value, _ := strings.Cut(param, "=")
			if !strings.EqualFold(strings.TrimSpace(key), "q") {
				continue
			}
			// Also false of NaN.
			if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && n >= 0 && n <= 1 {
				q = n
			} else {
				q = 0
			}
		}
		*weight = max(*weight, q)
	}
	return html > 0 && html >= plain
}
