package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
)

// Decrypter opens encrypted files; crypto.Attachments is one.
type Decrypter interface {
	// Attachment reads the `file` of an event. hash is the SHA-256 that the ciphertext must have. decrypt turns ciphertext, which begins offset bytes
	// into the file, into plaintext in place; it is called for any offset in any order, by one goroutine at a time. An error says that the file cannot
	// be opened, by this Decrypter or by any; it holds no key.
	Attachment(file *event.EncryptedFileInfo) (hash [sha256.Size]byte, decrypt func(data []byte, offset int64), err error)
}

const (
	// maxVerifyFirst is the largest file of which nothing is sent before all of it was verified. Of a larger download the last holdBack bytes are kept
	// back until then, so that nobody has the whole of a forgery.
	maxVerifyFirst = 32 << 20
	holdBack       = 64 << 10

	badFor = time.Hour // how long a forgery is refused without a look
	maxBad = 4096
)

// errTampered says that an encrypted file is not the one that its sender sent. AES-CTR would turn any change of the ciphertext into the same change of
// the plaintext.
var errTampered = errors.New("the encrypted file is not what its sender's hash says")

// openEncrypted opens an encrypted file as plaintext. What it gives was verified, or is verified before its end.
func (s *Server) openEncrypted(ctx context.Context, x *exchange, t *target, fetch fetcher) (content, error) {
	if s.decrypter == nil {
		return nil, failed(http.StatusNotImplemented, "open record %d: %w", x.link.record, ErrEncrypted)
	}
	want, decrypt, err := s.decrypter.Attachment(t.file)
	if err != nil {
		return nil, failed(http.StatusBadGateway, "open the encrypted file of record %d: %w", x.link.record, err)
	}
	key := t.key
	if s.bad.has(key, want, s.now()) {
		return nil, failed(http.StatusBadGateway, "%w (seen before)", errTampered)
	}
	inner, err := s.cache.open(ctx, key, fetch)
	if err != nil {
		return nil, err
	}
	x.source = inner
	size, _ := inner.about()
	// Parts are given of what was verified only, and a browser shows bytes as they come.
	first := size < 0 || size <= s.verifyFirst || mayInline(t.mime) || x.r.Header.Get("Range") != ""
	switch c := inner.(type) {
	case *cachedFile:
		if c.sum != want {
			err = errTampered
		}
	case *follower:
		if !first {
			c.want, c.held = &want, holdBack
			break
		}
		var sum [sha256.Size]byte
		if sum, err = c.whole(); err == nil && sum != want {
			err = errTampered
		}
	case *media:
		if first {
			err = failed(http.StatusServiceUnavailable, "there is no room on the disk to verify %d bytes", size)
			break
		}
		inner = &heldBack{media: c, want: want, hash: sha256.New()}
	}
	if err != nil {
		inner.Close()
		s.markTampered(t, err)
		var f *failure
		if errors.As(err, &f) || ctx.Err() != nil {
			return nil, err
		}
		return nil, readFailure(err)
	}
	return &decrypted{content: inner, decrypt: decrypt}, nil
}

// mayOpen tells whether GET would begin with the file rather than with a refusal.
func (s *Server) mayOpen(t *target) bool {
	if s.decrypter == nil {
		return false
	}
	want, _, err := s.decrypter.Attachment(t.file)
	return err == nil && !s.bad.has(t.key, want, s.now())
}

// markTampered remembers a forgery, so that it is not fetched again for each who asks.
func (s *Server) markTampered(t *target, err error) {
	if !errors.Is(err, errTampered) || t.file == nil {
		return
	}
	want, _, aerr := s.decrypter.Attachment(t.file)
	if aerr != nil {
		return
	}
	s.metrics.tampered.Inc()
	s.bad.add(t.key, want, s.now())
	s.cache.discard(t.key, "hash")
}

// decrypted is the plaintext of content.
type decrypted struct {
	content
	at      int64
	decrypt func(data []byte, offset int64)
}

func (d *decrypted) Read(p []byte) (int, error) {
	n, err := d.content.Read(p)
	d.decrypt(p[:n], d.at)
	d.at += int64(n)
	return n, err
}

// skip moves forward: by itself where the ciphertext can, and by reading where it cannot.
func (d *decrypted) skip(n int64) error {
	sk, ok := d.content.(skipper)
	if !ok {
		return errNoSkip
	}
	d.at += n
	return sk.skip(n)
}

// errNoSkip says that content can only be read.
var errNoSkip = errors.New("only reading moves forward")

// heldBack is the homeserver's answer without its last bytes, until all of it was verified. It is for files that the disk has no room for.
type heldBack struct {
	*media
	want [sha256.Size]byte
	hash hash.Hash
	held []byte // read and not given out
	done bool
}

func (h *heldBack) Read(p []byte) (int, error) {
	if h.held == nil {
		h.held = make([]byte, 0, holdBack+chunk)
	}
	for !h.done && len(h.held) <= holdBack {
		n, err := h.media.Read(h.held[len(h.held):cap(h.held)])
		h.hash.Write(h.held[len(h.held) : len(h.held)+n])
		h.held = h.held[:len(h.held)+n]
		if err != nil && err != io.EOF {
			return 0, err
		}
		if err == io.EOF {
			if [sha256.Size]byte(h.hash.Sum(nil)) != h.want {
				return 0, errTampered
			}
			h.done = true
		}
	}
	free := len(h.held)
	if !h.done {
		free -= holdBack
	} else if free == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.held[:free])
	h.held = h.held[:copy(h.held, h.held[n:])]
	return n, nil
}

// badMedia are the forgeries that were seen, each with when. The same file may be good for another event that names another hash.
type badMedia struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time
}

func badKey(key cacheKey, want [sha256.Size]byte) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%x %x", key, want))
}

func (b *badMedia) has(key cacheKey, want [sha256.Size]byte, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.seen[badKey(key, want)]
	return ok && now.Sub(at) < badFor
}

func (b *badMedia) add(key cacheKey, want [sha256.Size]byte, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen == nil || len(b.seen) >= maxBad {
		b.seen = make(map[[sha256.Size]byte]time.Time) // to forget costs a fetch
	}
	b.seen[badKey(key, want)] = now
}
