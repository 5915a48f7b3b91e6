package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	encrypted "maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// thumbnailSize is a size that pictures can be had in: there are no others, so that nobody can have the homeserver make, and the cache keep, any number.
// Each has a purpose of its own in the MAC, so that a link to one size is no link to another, nor to the file.
type thumbnailSize struct {
	segment       string // of the link, in front of the token
	purpose       purpose
	width, height int // pixels that the picture fits into
}

// The sizes are among those that homeservers keep by themselves (Synapse's `thumbnail_sizes`), so that asking for them costs it nothing.
var thumbnailSizes = [...]thumbnailSize{
	{"t320", "thumbnail 320x240", 320, 240},
	{"t800", "thumbnail 800x600", 800, 600},
}

// thumbnailAt finds a size by the segment of a link.
func thumbnailAt(segment string) *thumbnailSize {
	for i := range thumbnailSizes {
		if thumbnailSizes[i].segment == segment {
			return &thumbnailSizes[i]
		}
	}
	return nil
}

// thumbnail is the size that a purpose asks for; nil: it asks for none.
func (p purpose) thumbnail() *thumbnailSize {
	for i := range thumbnailSizes {
		if thumbnailSizes[i].purpose == p {
			return &thumbnailSizes[i]
		}
	}
	return nil
}

// variant names what the homeserver makes of a file, for the cache and the ETag.
func (z *thumbnailSize) variant() string {
	if z == nil {
		return ""
	}
	return z.segment
}

// thumbnail asks for a picture in a size. Of what the homeserver makes no thumbnail of, the file itself comes: what is shown then is large rather than nothing.
func (u *upstream) thumbnail(ctx context.Context, server, mediaID string, z *thumbnailSize) (*media, error) {
	query := url.Values{"width": {fmt.Sprint(z.width)}, "height": {fmt.Sprint(z.height)}, "method": {"scale"}, "animated": {"false"}}
	m, err := u.get(ctx, http.MethodGet, thumbnails, mediaPath(server, mediaID)+"?"+query.Encode())
	var f *failure
	if errors.As(err, &f) && (f.status == http.StatusNotFound || errors.Is(err, errStatus)) {
		return u.open(ctx, http.MethodGet, server, mediaID)
	}
	return m, err
}

// encryption is what a record keeps of encrypted media: the keys, and with its own keys the thumbnail that its sender made, because no homeserver can make one.
type encryption struct {
	encrypted.EncryptedFile
	Thumbnail *encryptedThumbnail `json:"thumbnail,omitempty"`
}

type encryptedThumbnail struct {
	Server  string                  `json:"server"`
	MediaID string                  `json:"media_id"`
	MIME    string                  `json:"mime"`
	File    encrypted.EncryptedFile `json:"file"`
}

// readEncryption reads what a record keeps; nil: the media is not encrypted.
func readEncryption(m *store.Media) (*encryption, error) {
	if len(m.Info) == 0 {
		return nil, nil
	}
	e := new(encryption)
	if json.Unmarshal(m.Info, e) != nil { // whose error would repeat a part of the keys
		return nil, failed(http.StatusBadGateway, "record %d: what is kept of its encryption cannot be read", m.ID)
	}
	return e, nil
}

// encryptedThumbnail is what the record keeps of the thumbnail; nil: there is none that can be opened, and the file itself is shown.
func (s *Signer) encryptedThumbnail(m Media) *encryptedThumbnail {
	if m.Thumbnail == nil {
		return nil
	}
	uri, err := m.Thumbnail.URL.Parse()
	if err != nil || !validServerName(uri.Homeserver) || !validMediaID(uri.FileID) {
		return nil
	}
	if _, _, err := s.decrypter.Attachment(m.Thumbnail); err != nil {
		return nil
	}
	return &encryptedThumbnail{uri.Homeserver, uri.FileID, baseType(m.ThumbnailMIME), m.Thumbnail.EncryptedFile}
}

// open settles a target as encrypted media, and in a smaller size as its thumbnail, where it has one.
func (e *encryption) open(t *target, small bool) {
	t.file = &event.EncryptedFileInfo{EncryptedFile: e.EncryptedFile}
	if th := e.Thumbnail; small && th != nil && validServerName(th.Server) && validMediaID(th.MediaID) {
		t.server, t.mediaID, t.mime = th.Server, th.MediaID, th.MIME
		t.file = &event.EncryptedFileInfo{EncryptedFile: th.File}
	}
	t.file.URL = id.ContentURI{Homeserver: t.server, FileID: t.mediaID}.CUString()
}

// discard deletes from the cache all that a record leads to: the file, what the homeserver made of it, and the thumbnail that its sender made.
func (s *Server) discard(m *store.Media, why string) {
	if m.Server != "" {
		s.cache.discard(keyOf(m.Server, m.MediaID, ""), why)
		for i := range thumbnailSizes {
			s.cache.discard(keyOf(m.Server, m.MediaID, thumbnailSizes[i].variant()), why)
		}
	}
	if e, err := readEncryption(m); err == nil && e != nil && e.Thumbnail != nil {
		s.cache.discard(keyOf(e.Thumbnail.Server, e.Thumbnail.MediaID, ""), why)
	}
}
