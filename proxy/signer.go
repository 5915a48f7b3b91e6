package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// DefaultLifetime is how long a link lives when nothing else is said.
const DefaultLifetime = 30 * 24 * time.Hour

// ErrNoStore says that a short link was asked for where there is no store to keep its record.
var ErrNoStore = errors.New("short links need a store")

// SignerConfig is what a Signer needs.
type SignerConfig struct {
	PublicURL string        // where browsers reach the Server: https://bridge.example, with a path when a reverse proxy strips one
	Store     Links         // where records and keys are; nil: self-contained links only, and Keys is needed
	Keys      *KeyRing      // nil: opened from Store
	Lifetime  time.Duration // of a link; 0: DefaultLifetime; negative: for ever
	Decrypter Decrypter     // checks the keys of encrypted media; nil: there are no links to it. The Server needs one too
	Now       func() time.Time
}

// Signer makes links.
type Signer struct {
	base      string // PublicURL without a slash at its end
	store     Links
	keys      *KeyRing
	lifetime  time.Duration
	decrypter Decrypter
	now       func() time.Time
}

// NewSigner checks the configuration and, where the store has no key yet, makes the first one.
func NewSigner(ctx context.Context, cfg SignerConfig) (*Signer, error) {
	base, err := publicBase(cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	s := &Signer{base: base, store: cfg.Store, keys: cfg.Keys, lifetime: cfg.Lifetime, decrypter: cfg.Decrypter, now: cfg.Now}
	if s.keys == nil {
		if cfg.Store == nil {
			return nil, errors.New("media links need Store, or Keys for self-contained links only")
		}
		if s.keys, err = OpenKeyRing(ctx, cfg.Store, cfg.Now); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func publicBase(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("public URL of the media proxy: %w", err)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return "", fmt.Errorf("public URL of the media proxy is %q: give the address that browsers use, such as https://bridge.example", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", fmt.Errorf("public URL of the media proxy is %q: leave out user, query and fragment", u.Redacted())
	}
	return strings.TrimRight(s, "/"), nil
}

// Short writes the link's record and returns the link, https://host/m/{34 characters}/{name}. The record is durable when Short returns.
// Errors: [ErrEncrypted], [ErrBadMedia], [ErrNoStore], [ErrNoKey], and those of the store.
func (s *Signer) Short(ctx context.Context, m Media) (string, error) {
	if s.store == nil {
		return "", ErrNoStore
	}
	record, err := s.record(m, s.expiry(m))
	if err != nil {
		return "", err
	}
	// Another process may have rotated or retired keys. One of its links must not come from a dead key.
	if err := s.keys.refresh(ctx, staleAfter); err != nil {
		return "", err
	}
	err = s.store.ChangeMedia(ctx, func(tx store.MediaTx) error { return tx.AddMedia(&record) })
	if err != nil {
		return "", fmt.Errorf("write the record of a link to %s: %w", m.URI, err)
	}
	return s.sign(&claims{purpose: purposeShort, record: record.ID}, record.Name)
}

// record is what a link to media stands for.
func (s *Signer) record(m Media, expires time.Time) (store.Media, error) {
	if err := m.check(); err != nil {
		return store.Media{}, err
	}
	info, err := s.encryption(m)
	return store.Media{
		Server: m.URI.Homeserver, MediaID: m.URI.FileID, Room: string(m.Room), Event: string(m.Event), Edit: string(m.Edit),
		Name: cleanName(m.Name), MIME: baseType(m.MIME), Size: m.Size, Created: s.now(), Expires: expires,
		Info: info, Sender: string(m.Sender),
	}, err
}

// Check says why there can be no link to media; nil: there can. The errors are [ErrEncrypted] and [ErrBadMedia].
func (s *Signer) Check(m Media) error {
	_, err := s.record(m, time.Time{})
	return err
}

// Again gives a short link to what a record leads to, whatever became of the old one: one that still works, as long as it does, or else a new one
// with a lifetime of its own. A message that was redacted gets none: [ErrRedacted]. A record that is gone is store.ErrNotFound, and so is a page whose time was over: nothing is kept of it.
func (s *Signer) Again(ctx context.Context, record int64) (string, error) {
	if s.store == nil {
		return "", ErrNoStore
	}
	if err := s.keys.refresh(ctx, staleAfter); err != nil {
		return "", err
	}
	m, err := s.store.Media(ctx, record)
	if err != nil {
		return "", fmt.Errorf("sign record %d again: %w", record, err)
	}
	m.ID, m.Created, m.Revoked, m.Expires = 0, s.now(), time.Time{}, s.expiry(Media{})
	if m.Kind != "" {
		err = s.pageAgain(ctx, record, m)
	} else {
		err = s.store.ChangeMedia(ctx, func(tx store.MediaTx) error { return tx.AddMedia(m) })
	}
	if err != nil {
		return "", fmt.Errorf("sign record %d again: %w", record, err)
	}
	if !m.Revoked.IsZero() {
		return "", fmt.Errorf("sign record %d again: %w", record, ErrRedacted)
	}
	return s.sign(&claims{purpose: purposeShort, record: m.ID}, m.Name)
}

// SelfContained returns a link that needs no record: https://host/media/{server}/{mediaID}/{name}?…&mac=. Its query holds the key ID (k), expiry in
// Unix seconds (x), creation in Unix milliseconds (c), room (r), event (e), type (t), disposition (d) and file name (n), all signed.
// Errors: [ErrEncrypted], [ErrBadMedia], [ErrNoKey].
func (s *Signer) SelfContained(m Media) (string, error) {
	if err := m.check(); err != nil {
		return "", err
	}
	if m.Encrypted != nil { // its keys would have to be in the link
		return "", fmt.Errorf("link to %s without a record: %w", m.URI, ErrEncrypted)
	}
	if len(m.Room) > maxGrammar || len(m.Event) > maxGrammar {
		return "", fmt.Errorf("link to %s: the room ID and the event ID may have %d bytes each", m.URI, maxGrammar)
	}
	name := cleanName(m.Name)
	c := &claims{
		purpose: purposeSelfContained, server: m.URI.Homeserver, mediaID: m.URI.FileID,
		room: string(m.Room), event: string(m.Event), mime: baseType(m.MIME), disposition: attachment, name: name,
		created: s.now().UnixMilli(),
	}
	if c.mime == "" || mayInline(c.mime) { // an unknown type is the homeserver's to declare
		c.disposition = inline
	}
	if at := s.expiry(m); !at.IsZero() {
		c.expires = max(at.Unix(), 1)
	}
	return s.sign(c, name)
}

// Keys returns the ring the signer signs with, for the Server of the same process and for rotation.
func (s *Signer) Keys() *KeyRing { return s.keys }

func (s *Signer) expiry(m Media) time.Time {
	switch {
	case !m.Expires.IsZero():
		return m.Expires
	case s.lifetime < 0:
		return time.Time{}
	}
	return s.now().Add(s.lifetime)
}

func (s *Signer) sign(c *claims, name string) (string, error) {
	path, ok := s.keys.path(c, displayName(name))
	if !ok {
		return "", ErrNoKey
	}
	return s.base + path, nil
}

// encryption is what the record keeps of the keys of encrypted media. They are in the store and nowhere else.
func (s *Signer) encryption(m Media) ([]byte, error) {
	if m.Encrypted == nil {
		return nil, nil
	}
	if s.decrypter == nil {
		return nil, fmt.Errorf("link to %s: %w", m.URI, ErrEncrypted)
	}
	if _, _, err := s.decrypter.Attachment(m.Encrypted); err != nil {
		return nil, fmt.Errorf("link to %s: %w: %w", m.URI, ErrBadMedia, err)
	}
	info, err := json.Marshal(&encryption{m.Encrypted.EncryptedFile, s.encryptedThumbnail(m)})
	if err != nil {
		return nil, fmt.Errorf("link to %s: the keys cannot be written down", m.URI)
	}
	return info, nil
}

func (m *Media) check() error {
	if !validServerName(m.URI.Homeserver) || !validMediaID(m.URI.FileID) {
		return fmt.Errorf("link to %q on %q: %w", m.URI.FileID, m.URI.Homeserver, ErrBadMedia)
	}
	return nil
}
