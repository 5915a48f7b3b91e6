package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// target is the media that a link means, settled by its record or by its claims.
type target struct {
	server, mediaID string
	name            string
	mime            string // as the sender declared it; "": as the homeserver declares it
	disposition     string // what the answer may be at most
	expires         time.Time
	room            string
	link            store.Media              // what revocations are compared with
	page            bool                     // it is no media, but a page of the bridge's own
	file            *event.EncryptedFileInfo // of encrypted media
	size            *thumbnailSize           // that the homeserver is asked for; nil: the file itself

	// What follows from these, as answers need it. A target is shared by requests, and not changed.
	key     cacheKey // names the bytes that the homeserver has
	counted string   // what requests and bytes are counted against
	etag    string   // strong: the bytes behind an mxc:// address never change, nor do the keys of one record
	headers targetHeaders

	// revoked tells whether the link still stands.
	revoked func(ctx context.Context) (bool, error)
}

// targetHeaders are values of headers, ready for a map of them.
type targetHeaders struct{ etag, inline, attachment []string }

// settle works out what follows from the rest.
func (t *target) settle() {
	t.name = cleanName(t.name)
	t.key = keyOf(t.server, t.mediaID, t.size.variant())
	t.counted = t.server + "/" + t.mediaID
	if t.page {
		t.counted = fmt.Sprint("page ", t.link.ID)
	}
	t.etag = t.tag()
	t.headers = targetHeaders{
		etag: []string{t.etag}, inline: []string{contentDisposition(inline, t.name)}, attachment: []string{contentDisposition(attachment, t.name)},
	}
}

func (t *target) tag() string {
	text := fmt.Appendf(nil, "%d:%s:%s", len(t.server), t.server, t.mediaID)
	if t.file != nil {
		text = fmt.Appendf(text, ":%d:%s:%s", len(t.file.InitVector), t.file.InitVector, t.file.Hashes.SHA256)
	}
	if t.size != nil {
		text = fmt.Appendf(text, ":%s", t.size.variant())
	}
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// declared is the type that somebody gave: the sender, or the homeserver when the sender was silent. Of encrypted media the homeserver knows nothing.
func (t *target) declared(m content) string {
	switch {
	case t.mime != "":
		return t.mime
	case t.file != nil:
		return unknownType
	}
	_, contentType := m.about()
	return contentType
}

var (
	errEnded = &failure{http.StatusGone, errors.New("the link has ended")}
	errGone  = &failure{http.StatusGone, errRevoked}
)

// resolve settles what a link whose MAC holds leads to. The record of a short link is read each time, so that a revocation holds at once, unless it was
// read a moment ago and this process has revoked nothing since.
func (s *Server) resolve(ctx context.Context, c *claims) (t *target, err error) {
	if c.purpose == purposeSelfContained {
		t, err = s.resolveSelfContained(ctx, c)
	} else if t = s.memo.get(c); t == nil {
		at := s.memo.now()
		if t, err = s.resolveShort(ctx, c); err == nil {
			s.memo.put(c, at, t)
		}
	}
	if err == nil && t.hasEnded(s.now()) {
		return nil, errEnded
	}
	return t, err
}

func (t *target) hasEnded(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

func (s *Server) resolveShort(ctx context.Context, c *claims) (*target, error) {
	if s.links == nil {
		return nil, failed(http.StatusNotFound, "a short link, and no store to look its record up")
	}
	t := &target{disposition: inline}
	record, err := s.links.Media(ctx, c.record)
	switch {
	case errors.Is(err, store.ErrNotFound): // the MAC holds, so there was a record once
		return nil, errEnded
	case err != nil:
		return nil, fmt.Errorf("read record %d: %w", c.record, err)
	case !record.Revoked.IsZero(): // the watcher has emptied the cache; who asks again must not do it to others' links to the same file
		return nil, errGone
	case record.Kind != "" && c.purpose != purposeShort:
		return nil, failed(http.StatusNotFound, "record %d: a page has no thumbnail", c.record)
	case record.Kind != "":
		t.page = true
	case !validServerName(record.Server) || !validMediaID(record.MediaID):
		return nil, failed(http.StatusNotFound, "record %d: %w", c.record, ErrBadMedia)
	}
	t.server, t.mediaID, t.name, t.mime, t.expires = record.Server, record.MediaID, record.Name, record.MIME, record.Expires
	t.room, t.link = record.Room, *record
	size := c.purpose.thumbnail()
	if e, err := readEncryption(record); err != nil {
		return nil, err
	} else if e != nil {
		e.open(t, size != nil)
	} else if t.size = size; size != nil {
		t.mime = "" // a thumbnail is what the homeserver makes it
	}
	id := c.record
	t.revoked = func(ctx context.Context) (bool, error) {
		record, err := s.links.Media(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return true, nil
		}
		return err == nil && !record.Revoked.IsZero(), err
	}
	t.settle()
	return t, nil
}

func (s *Server) resolveSelfContained(ctx context.Context, c *claims) (*target, error) {
	t := &target{server: c.server, mediaID: c.mediaID, name: c.name, mime: c.mime, disposition: c.disposition, room: c.room}
	t.link = store.Media{Server: c.server, MediaID: c.mediaID, Room: c.room, Event: c.event}
	if c.created != 0 {
		t.link.Created = time.UnixMilli(c.created)
	}
	if c.expires != 0 {
		t.expires = time.Unix(c.expires, 0)
	}
	if t.hasEnded(s.now()) {
		return nil, errEnded
	}
	room, event := id.RoomID(c.room), id.EventID(c.event)
	t.revoked = func(ctx context.Context) (bool, error) {
		if s.links != nil {
			return s.links.LinkRevoked(ctx, &t.link)
		}
		if s.revoked == nil || event == "" {
			return false, nil
		}
		return s.revoked(ctx, room, event)
	}
	revoked, err := t.revoked(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask whether event %s was revoked: %w", c.event, err)
	}
	if revoked {
		s.discard(&t.link, "revoked")
		return nil, errGone
	}
	t.settle()
	return t, nil
}
