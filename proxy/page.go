package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// The kinds of page, as records have them.
const (
	pageText    = "text"
	pageGallery = "gallery"
)

const (
	maxPageText   = 128 << 10 // bytes; an event of Matrix has at most 64 KiB
	maxPageFiles  = 500
	maxPageAuthor = 120 // bytes
)

// ErrTooMuch says that a page was to show more than 128 KiB of text or 500 files.
var ErrTooMuch = errors.New("too much for a page")

// Page is a message that the network has no room for: a long text, or several files in one message. A page is shown to browsers as HTML, and as plain text
// to whoever does not ask for HTML.
type Page struct {
	Author string  // the sender's display name; any text, cleaned before use
	Text   string  // plain text, without the fallback of a reply; with Files their caption
	Files  []Media // of a gallery, each with a link of its own; none: the page is a text

	Room   id.RoomID
	Event  id.EventID // the message: its redaction deletes the page. An edit keeps it, see [EditPage]
	Sender id.UserID

	Written time.Time  // when the message was written or, for an edit, when that was
	Edit    id.EventID // the event that made the message what it is, if it was edited: the redaction of that one deletes the page too
	Expires time.Time  // zero takes the signer's lifetime
}

func (p *Page) kind() string {
	if len(p.Files) > 0 {
		return pageGallery
	}
	return pageText
}

// pageBody is what the store keeps of a page.
type pageBody struct {
	Author string     `json:"author,omitempty"`
	Text   string     `json:"text,omitempty"`
	Edited bool       `json:"edited,omitempty"`
	Files  []pageFile `json:"files,omitempty"`
}

// pageFile is a file of a gallery, by the record of its link.
type pageFile struct {
	Record int64  `json:"record"`
	Name   string `json:"name,omitempty"`
	MIME   string `json:"mime,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Width  int    `json:"width,omitempty"`
	Height int    `json:"height,omitempty"`
}

func (f *pageFile) isPicture() bool { return strings.HasPrefix(f.MIME, "image/") && mayInline(f.MIME) }

// body is the page without its files.
func (p *Page) body() (*pageBody, error) {
	if len(p.Text) > maxPageText || len(p.Files) > maxPageFiles {
		return nil, fmt.Errorf("page of event %s: %w", p.Event, ErrTooMuch)
	}
	author := strings.Join(strings.Fields(pageSafe(p.Author)), " ")
	return &pageBody{
		Author: shorten(author, maxPageAuthor, func(s string) int { return len(s) }), Text: strings.Trim(pageSafe(p.Text), "\n"), Edited: p.Edit != "",
	}, nil
}

// pageSafe makes text fit for a page, and for the terminal of whoever fetches it with curl: valid UTF-8, LF as its only line break, and no other control
// character than the tab.
func pageSafe(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, string(utf8.RuneError)), "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029':
			return '\n'
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, text)
}

func encodePage(b *pageBody) []byte {
	data, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and numbers
	}
	return data
}

// Page writes what a page shows and returns its link, which has the form of short links: https://host/m/{34 characters}/text, or …/gallery. Both are durable
// when Page returns. A message whose page has a good link keeps both, and the page shows what is newest.
// Errors: [ErrTooMuch], [ErrEncrypted] and [ErrBadMedia] for files, [ErrNoStore], [ErrNoKey], and those of the store.
func (s *Signer) Page(ctx context.Context, p Page) (string, error) {
	if s.store == nil {
		return "", ErrNoStore
	}
	body, err := p.body()
	if err != nil {
		return "", err
	}
	expires := s.expiry(Media{Expires: p.Expires})
	records := make([]store.Media, len(p.Files))
	for i := range p.Files {
		file := p.Files[i]
		file.Room, file.Event, file.Edit, file.Sender = p.Room, p.Event, p.Edit, p.Sender
		if records[i], err = s.record(file, expires); err != nil {
			return "", err
		}
	}
	// Another process may have rotated or retired keys.
	if err := s.keys.refresh(ctx, staleAfter); err != nil {
		return "", err
	}
	page := store.Media{
		Room: string(p.Room), Event: string(p.Event), Edit: string(p.Edit), Sender: string(p.Sender), Name: p.kind(), Kind: p.kind(), Created: s.now(), Expires: expires,
	}
	err = s.store.ChangeMedia(ctx, func(tx store.MediaTx) error {
		body.Files = make([]pageFile, len(records))
		for i := range records {
			if err := tx.AddMedia(&records[i]); err != nil {
				return err
			}
			f := &p.Files[i]
			body.Files[i] = pageFile{records[i].ID, records[i].Name, records[i].MIME, f.Size, f.Width, f.Height}
		}
		return tx.AddPage(&page, &store.MediaPage{Body: encodePage(body), Written: p.Written})
	})
	if err != nil {
		return "", fmt.Errorf("write the page of event %s: %w", p.Event, err)
	}
	return s.sign(&claims{purpose: purposeShort, record: page.ID}, page.Name)
}

// EditPage has the text page of a message show what its sender made of it, whoever has its link. It makes no page where there is none, and tells
// whether there was one. What is older than what the page shows, and what is another sender's, changes nothing.
func EditPage(tx store.MediaTx, p Page) (bool, error) {
	body, err := p.body()
	if err != nil {
		return false, err
	}
	n, err := tx.EditPages(&store.Media{Room: string(p.Room), Event: string(p.Event), Edit: string(p.Edit), Sender: string(p.Sender), Kind: pageText},
		&store.MediaPage{Body: encodePage(body), Written: p.Written})
	return n > 0, err
}

// pageAgain writes a page anew, with records of its own for its files, in the transaction of [Signer.Again].
func (s *Signer) pageAgain(ctx context.Context, old int64, m *store.Media) error {
	p, err := s.store.MediaPage(ctx, old)
	if err != nil {
		return err
	}
	var body pageBody
	if err := json.Unmarshal(p.Body, &body); err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	files := make([]*store.Media, len(body.Files))
	for i, f := range body.Files {
		if files[i], err = s.store.Media(ctx, f.Record); err != nil {
			return err
		}
		files[i].ID, files[i].Created, files[i].Revoked, files[i].Expires = 0, m.Created, time.Time{}, m.Expires
	}
	return s.store.ChangeMedia(ctx, func(tx store.MediaTx) error {
		for i, f := range files {
			if err := tx.AddMedia(f); err != nil {
				return err
			}
			body.Files[i].Record = f.ID
		}
		return tx.AddPage(m, &store.MediaPage{Body: encodePage(&body), Written: p.Written})
	})
}
