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

	// revoked tells whether the link still stands.
	revoked func(ctx context.Context) (bool, error)
}

// key names the bytes that the homeserver has.
func (t *target) key() cacheKey { return keyOf(t.server, t.mediaID, t.size.variant()) }

// counted names what requests and bytes are counted against.
func (t *target) counted() string {
	if t.page {
		return fmt.Sprint("page ", t.link.ID)
	}
	return t.server + "/" + t.mediaID
}

// etag is strong: the bytes behind an mxc:// address never change, nor do the keys of one record.
func (t *target) etag() string {
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

// resolve settles what a link whose MAC holds leads to. The record is read each time, so that a revocation holds at once.
func (s *Server) resolve(ctx context.Context, c *claims) (*target, error) {
	t := &target{disposition: inline}
	if c.purpose != purposeSelfContained {
		if s.links == nil {
			return nil, failed(http.StatusNotFound, "a short link, and no store to look its record up")
		}
		record, err := s.links.Media(ctx, c.record)
		switch {
		case errors.Is(err, store.ErrNotFound): // the MAC holds, so there was a record once
			return nil, errEnded
		case err != nil:
			return nil, fmt.Errorf("read record %d: %w", c.record, err)
		case !record.Revoked.IsZero():
			s.discard(record, "revoked")
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
		t.revoked = func(ctx context.Context) (bool, error) {
			record, err := s.links.Media(ctx, c.record)
			if errors.Is(err, store.ErrNotFound) {
				return true, nil
			}
			return err == nil && !record.Revoked.IsZero(), err
		}
	} else {
		t.server, t.mediaID, t.name, t.mime, t.disposition = c.server, c.mediaID, c.name, c.mime, c.disposition
		t.room = c.room
		t.link = store.Media{Server: c.server, MediaID: c.mediaID, Room: c.room, Event: c.event}
		if c.created != 0 {
			t.link.Created = time.UnixMilli(c.created)
		}
		if c.expires != 0 {
			t.expires = time.Unix(c.expires, 0)
		}
		t.revoked = func(ctx context.Context) (bool, error) {
			if s.links != nil {
				return s.links.LinkRevoked(ctx, &t.link)
			}
			if s.revoked == nil || c.event == "" {
				return false, nil
			}
			return s.revoked(ctx, id.RoomID(c.room), id.EventID(c.event))
		}
	}
	if !t.expires.IsZero() && !s.now().Before(t.expires) {
		return nil, errEnded
	}
	if c.purpose == purposeSelfContained {
		revoked, err := t.revoked(ctx)
		if err != nil {
			return nil, fmt.Errorf("ask whether event %s was revoked: %w", c.event, err)
		}
		if revoked {
			s.discard(&t.link, "revoked")
			return nil, errGone
		}
	}
	t.name = cleanName(t.name)
	return t, nil
}
