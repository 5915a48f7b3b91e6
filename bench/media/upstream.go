package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/bench/internal/payload"
)

const server = "bench"

// parseName reads what a file is from its name: n for plain or e for encrypted, and a number of bytes.
func parseName(name string) (size int64, encrypted bool, err error) {
	if name == "" || name[0] != 'n' && name[0] != 'e' {
		return 0, false, fmt.Errorf("%q is no file: n and a number of bytes, or e and one", name)
	}
	size, err = strconv.ParseInt(name[1:], 10, 64)
	return size, name[0] == 'e', err
}

// upstream gives out media as a homeserver does: whole, deaf to Range.
type upstream struct {
	asked atomic.Int64

	mu        sync.Mutex
	encrypted map[int64][]byte
}

func serveUpstream(ctx context.Context, listener net.Listener) error {
	u := &upstream{encrypted: make(map[int64][]byte)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, u.asked.Load()) })
	mux.Handle("GET /_matrix/client/v1/media/download/"+server+"/{name}", u)
	return serveUntil(ctx, listener, mux)
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	size, encrypted, err := parseName(r.PathValue("name"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	u.asked.Add(1)
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if encrypted {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(u.ciphertext(size)) // who leaves is told nothing
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_ = payload.Write(w, size)
}

func (u *upstream) ciphertext(size int64) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.encrypted[size] == nil {
		u.encrypted[size] = encrypt(size)
	}
	return u.encrypted[size]
}

// The key is no secret here, and both processes have to know it.
var (
	key     = []byte(strings.Repeat("k", 32))
	counter = append([]byte("initial."), make([]byte, 8)...)
)

func encrypt(size int64) []byte {
	var b bytes.Buffer
	b.Grow(int(size))
	_ = payload.Write(&b, size) // a buffer takes everything
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's length is wrong
	}
	cipher.NewCTR(block, counter).XORKeyStream(b.Bytes(), b.Bytes())
	return b.Bytes()
}

// keysOf is the `file` of the event that an encrypted file of this size came with.
func keysOf(size int64) *event.EncryptedFileInfo {
	sum := sha256.Sum256(encrypt(size))
	return &event.EncryptedFileInfo{EncryptedFile: attachment.EncryptedFile{
		Key: attachment.JSONWebKey{
			Key: base64.RawURLEncoding.EncodeToString(key), Algorithm: "A256CTR", Extractable: true, KeyType: "oct", KeyOps: []string{"encrypt", "decrypt"},
		},
		InitVector: base64.RawStdEncoding.EncodeToString(counter),
		Hashes:     attachment.EncryptedFileHashes{SHA256: base64.RawStdEncoding.EncodeToString(sum[:])},
		Version:    "v2",
	}}
}
