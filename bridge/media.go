package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

// This file is what the media proxy has to do with a message on its way to the network: links to files, and pages for what the network has no room for.

// maxGallery is how many files of one message are linked to; an event has room for about 200.
const maxGallery = 200

// addMedia describes a file and signs a link to it. The file's own name is `filename`; `body` is then the caption.
func (b *Bridge) addMedia(ctx context.Context, msg *Message, content *event.MessageEventContent, page proxy.Page) error {
	msg.Media = &Media{Name: content.GetFileName()}
	msg.Text, msg.HTML = content.GetCaption(), ""
	if msg.Text != "" && content.Format == event.FormatHTML {
		msg.HTML = content.FormattedBody
	}
	if info := content.Info; info != nil {
		msg.Media.MIME, msg.Media.Size, msg.Media.Width, msg.Media.Height = info.MimeType, int64(info.Size), info.Width, info.Height
		msg.Media.Duration = playing(info.Duration)
	}
	if audio := content.MSC1767Audio; audio != nil && msg.Media.Duration <= 0 {
		msg.Media.Duration = playing(audio.Duration)
	}
	msg.Media.Voice = content.MSC3245Voice != nil
	if b.signer == nil {
		return nil
	}
	file, err := linked(content)
	if err == nil {
		file.Room, file.Event, file.Edit, file.Sender = page.Room, page.Event, page.Edit, page.Sender
		msg.Media.URL, err = b.signer.Short(ctx, file)
	}
	switch {
	case errors.Is(err, proxy.ErrBadMedia), errors.Is(err, proxy.ErrEncrypted):
		msg.Text, msg.HTML = joinWords(msg.Text, "(the file has no valid address, or no valid keys)"), ""
		return nil
	case err != nil:
		return fmt.Errorf("signing the link of %s: %w", msg.ID, err)
	}
	return nil
}

// playing is how long something plays; 0: its sender says nothing that can be.
func playing(milliseconds int) time.Duration {
	const most = 10_000 * time.Hour
	if milliseconds < 0 || int64(milliseconds) > most.Milliseconds() {
		return 0
	}
	return time.Duration(milliseconds) * time.Millisecond
}

// linked is what a link to the file of a message leads to. Encrypted files come with their keys, and with the thumbnail that their sender made.
func linked(content *event.MessageEventContent) (proxy.Media, error) {
	m := proxy.Media{Name: content.GetFileName(), Encrypted: content.File}
	address := content.URL
	if content.File != nil {
		address = content.File.URL
	}
	if info := content.Info; info != nil {
		m.MIME, m.Size, m.Width, m.Height = info.MimeType, int64(info.Size), info.Width, info.Height
		if content.File != nil && info.ThumbnailFile != nil {
			m.Thumbnail, m.ThumbnailMIME = info.ThumbnailFile, info.GetThumbnailInfo().MimeType
		}
	}
	uri, err := address.Parse()
	if err != nil || uri.IsEmpty() {
		return m, proxy.ErrBadMedia
	}
	m.URI = uri
	return m, nil
}

func joinWords(a, b string) string {
	if a == "" {
		return b
	}
	return a + " " + b
}

// galleryTypes are the msgtypes of several files in one message: MSC4274, stable and not, and what Beeper has.
var galleryTypes = map[event.MessageType]bool{"m.gallery": true, "dm.filament.gallery": true, event.MsgBeeperGallery: true}

// galleryFiles reads the files of a gallery; none: the message is something else.
func galleryFiles(content *event.MessageEventContent, decoded *event.Event, edit bool) (files []proxy.Media) {
	if !galleryTypes[content.MsgType] {
		return nil
	}
	items := content.BeeperGalleryImages
	if content.MsgType != event.MsgBeeperGallery {
		var said struct {
			Items []json.RawMessage `json:"itemtypes"`
			New   struct {
				Items []json.RawMessage `json:"itemtypes"`
			} `json:"m.new_content"`
		}
		if json.Unmarshal(decoded.Content.VeryRaw, &said) != nil {
			return nil
		}
		if edit {
			said.Items = said.New.Items
		}
		for _, one := range said.Items {
			var item event.MessageEventContent
			if json.Unmarshal(one, &item) == nil { // one bad file must not hide the others
				items = append(items, &item)
			}
		}
	}
	for _, item := range items {
		if item == nil || len(files) == maxGallery {
			continue
		}
		if file, err := linked(item); err == nil {
			files = append(files, file)
		}
	}
	return files
}

// addGallery describes several files and makes a page of them.
func (b *Bridge) addGallery(ctx context.Context, msg *Message, content *event.MessageEventContent, files []proxy.Media, page proxy.Page) error {
	var good []proxy.Media // one bad file must not hide the others
	for i := range files {
		if b.signer != nil && b.signer.Check(files[i]) == nil {
			good = append(good, files[i])
		}
	}
	if len(good) > 0 {
		files = good
	}
	msg.Kind, msg.Media = KindGallery, &Media{Files: len(files)}
	if content.MsgType == event.MsgBeeperGallery {
		msg.Text, msg.HTML = content.BeeperGalleryCaption, content.BeeperGalleryCaptionHTML
	}
	what := "pictures"
	for i := range files {
		msg.Media.Size += max(files[i].Size, 0)
		if !strings.HasPrefix(files[i].MIME, "image/") {
			what = "files"
		}
	}
	if len(files) == 1 {
		what = strings.TrimSuffix(what, "s")
	}
	msg.Media.Name = fmt.Sprintf("%d %s", len(files), what)
	if b.signer == nil {
		return nil
	}
	if len(good) == 0 {
		msg.Text, msg.HTML = joinWords(msg.Text, "(the files have no valid addresses, or no valid keys)"), ""
		return nil
	}
	var err error
	page.Text, page.Files = msg.Text, files
	if msg.Media.URL, err = b.signer.Page(ctx, page); err != nil {
		return fmt.Errorf("making the page of %s: %w", msg.ID, err)
	}
	return nil
}

// offerPage lets the network have a page with the whole of the message's text. An edit changes the page that is there at once, whether or not the network needs a
// link to it: whoever has the old one must not read what was taken back.
func (b *Bridge) offerPage(ctx context.Context, msg *Message, page proxy.Page) error {
	if b.signer == nil {
		return nil
	}
	page.Text = msg.Text
	if msg.ReplyTo != nil { // what a message quotes could be made up, and is not its sender's to publish
		page.Text = event.TrimReplyFallbackText(page.Text)
	}
	if page.Edit != "" {
		err := b.store.ChangeMedia(ctx, func(tx store.MediaTx) error {
			_, err := proxy.EditPage(tx, page)
			return err
		})
		if err != nil && !errors.Is(err, proxy.ErrTooMuch) {
			return err
		}
	}
	if strings.TrimSpace(page.Text) == "" {
		return nil
	}
	msg.TextLink = func(ctx context.Context) (string, error) {
		link, err := b.signer.Page(ctx, page)
		if err != nil {
			return "", fmt.Errorf("making the page of %s: %w", msg.ID, err)
		}
		return link, nil
	}
	return nil
}
