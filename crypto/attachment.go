package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"maunium.net/go/mautrix/event"
)

// ErrAttachment says that the `file` of an event cannot be used to open its media.
var ErrAttachment = errors.New("the keys of the encrypted file cannot be used")

// Attachments opens encrypted files (client-server API, "Sending encrypted attachments"). It is a proxy.Decrypter.
//
// mautrix's attachment package reads a file from its beginning only, and tells at its end whether the hash held. Here decryption begins at
// any offset, and whoever reads is given the hash, to decide when to believe the bytes.
type Attachments struct{}

// Attachment checks the `file` of an event: version v2, AES-256 in counter mode, 16 bytes of initial counter, and a SHA-256. hash is what the
// ciphertext must have. decrypt turns ciphertext that begins offset bytes into the file into plaintext, in place; it is for one goroutine at a
// time. Errors are [ErrAttachment], and hold nothing of the key.
func (Attachments) Attachment(file *event.EncryptedFileInfo) (hash [sha256.Size]byte, decrypt func(data []byte, offset int64), err error) {
	if file == nil {
		return hash, nil, fmt.Errorf("%w: there are none", ErrAttachment)
	}
	// Version 1 left out the low bits of the counter. No client has sent it since 2016.
	if file.Version != "v2" {
		return hash, nil, fmt.Errorf("%w: the version is not v2", ErrAttachment)
	}
	if file.Key.Algorithm != "A256CTR" || file.Key.KeyType != "" && file.Key.KeyType != "oct" {
		return hash, nil, fmt.Errorf("%w: the algorithm is not A256CTR", ErrAttachment)
	}
	var key [32]byte
	var counter [aes.BlockSize]byte
	for _, field := range []struct {
		name, text string
		into       []byte
	}{{"key", file.Key.Key, key[:]}, {"initial counter", file.InitVector, counter[:]}, {"SHA-256", file.Hashes.SHA256, hash[:]}} {
		if !decodeField(field.text, field.into) {
			return hash, nil, fmt.Errorf("%w: the %s is not %d bytes of base64", ErrAttachment, field.name, len(field.into))
		}
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return hash, nil, fmt.Errorf("%w: %w", ErrAttachment, err)
	}
	return hash, (&counterMode{block: block, start: counter}).xor, nil
}

// decodeField reads base64 in any of the forms that clients write: both alphabets, with and without padding.
func decodeField(text string, into []byte) bool {
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	if base64.RawStdEncoding.DecodedLen(len(text)) != len(into) {
		return false
	}
	n, err := base64.RawStdEncoding.Decode(into, []byte(text))
	return err == nil && n == len(into)
}

// counterMode is AES-CTR that goes on where it stopped, and starts anew anywhere else.
type counterMode struct {
	block  cipher.Block
	start  [aes.BlockSize]byte
	stream cipher.Stream
	at     int64
}

func (c *counterMode) xor(data []byte, offset int64) {
	if c.stream == nil || c.at != offset {
		counter := addCounter(c.start, uint64(offset)/aes.BlockSize)
		c.stream = cipher.NewCTR(c.block, counter[:])
		var skipped [aes.BlockSize]byte
		into := skipped[:offset%aes.BlockSize]
		c.stream.XORKeyStream(into, into)
	}
	c.stream.XORKeyStream(data, data)
	c.at = offset + int64(len(data))
}

// addCounter adds blocks to a counter of 128 bits, which wraps around as the cipher's does.
func addCounter(counter [aes.BlockSize]byte, blocks uint64) [aes.BlockSize]byte {
	low, carry := bits.Add64(binary.BigEndian.Uint64(counter[8:]), blocks, 0)
	high, _ := bits.Add64(binary.BigEndian.Uint64(counter[:8]), 0, carry)
	binary.BigEndian.PutUint64(counter[8:], low)
	binary.BigEndian.PutUint64(counter[:8], high)
	return counter
}
