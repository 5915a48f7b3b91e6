package crypto_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/crypto"
)

// encrypt makes an encrypted file as mautrix's clients do.
func encrypt(plain []byte) (*event.EncryptedFileInfo, []byte) {
	file := attachment.NewEncryptedFile()
	data := bytes.Clone(plain)
	file.EncryptInPlace(data)
	return &event.EncryptedFileInfo{EncryptedFile: *file}, data
}

func TestAttachment_AnyPart_IsDecryptedAsTheWhole(t *testing.T) {
	plain := make([]byte, 10_000)
	for i := range plain {
		plain[i] = byte(i * 7 >> 3)
	}
	file, data := encrypt(plain)
	hash, decrypt, err := crypto.Attachments{}.Attachment(file)
	if err != nil {
		t.Fatal(err)
	}
	if hash != sha256.Sum256(data) {
		t.Error("another hash")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		from := random.IntN(len(plain))
		to := from + random.IntN(len(plain)-from+1)
		part := bytes.Clone(data[from:to])
		for at := 0; at < len(part); { // in pieces that do not end with blocks
			n := min(1+random.IntN(1000), len(part)-at)
			decrypt(part[at:at+n], int64(from+at))
			at += n
		}
		if !bytes.Equal(part, plain[from:to]) {
			t.Fatalf("bytes %d to %d are wrong", from, to)
		}
	}
}

func TestAttachment_CounterThatOverflows_WrapsAsTheCipherDoes(t *testing.T) {
	key, counter := bytes.Repeat([]byte{9}, 32), bytes.Repeat([]byte{0xff}, 16)
	plain := bytes.Repeat([]byte("sixteen bytes ok"), 20)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Clone(plain)
	cipher.NewCTR(block, counter).XORKeyStream(data, data)
	sum := sha256.Sum256(data)
	file := &event.EncryptedFileInfo{EncryptedFile: attachment.EncryptedFile{
		Version: "v2", InitVector: base64.StdEncoding.EncodeToString(counter), // with padding, as some clients write it
		Key:    attachment.JSONWebKey{Key: base64.RawURLEncoding.EncodeToString(key), Algorithm: "A256CTR", KeyType: "oct"},
		Hashes: attachment.EncryptedFileHashes{SHA256: base64.StdEncoding.EncodeToString(sum[:])},
	}}
	_, decrypt, err := crypto.Attachments{}.Attachment(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int{0, 1, 15, 16, 17, 40, 160} {
		part := bytes.Clone(data[from:])
		decrypt(part, int64(from))
		if !bytes.Equal(part, plain[from:]) {
			t.Errorf("wrong from byte %d on", from)
		}
	}
}

func TestAttachment_KeysThatCannotBeUsed_AreNamedWithoutThem(t *testing.T) {
	for name, spoil := range map[string]func(f *event.EncryptedFileInfo){
		"version":    func(f *event.EncryptedFileInfo) { f.Version = "v1" },
		"algorithm":  func(f *event.EncryptedFileInfo) { f.Key.Algorithm = "A128CBC" },
		"key type":   func(f *event.EncryptedFileInfo) { f.Key.KeyType = "RSA" },
		"short key":  func(f *event.EncryptedFileInfo) { f.Key.Key = f.Key.Key[:20] },
		"long key":   func(f *event.EncryptedFileInfo) { f.Key.Key += "AAAA" },
		"no key":     func(f *event.EncryptedFileInfo) { f.Key.Key = "" },
		"bad key":    func(f *event.EncryptedFileInfo) { f.Key.Key = strings.Repeat("!", len(f.Key.Key)) },
		"counter":    func(f *event.EncryptedFileInfo) { f.InitVector = "AAAA" },
		"no hash":    func(f *event.EncryptedFileInfo) { f.Hashes.SHA256 = "" },
		"cut hash":   func(f *event.EncryptedFileInfo) { f.Hashes.SHA256 = f.Hashes.SHA256[:8] },
		"empty file": func(f *event.EncryptedFileInfo) { *f = event.EncryptedFileInfo{} },
	} {
		file, _ := encrypt([]byte("x"))
		secret := file.Key.Key
		spoil(file)
		_, _, err := crypto.Attachments{}.Attachment(file)
		if !errors.Is(err, crypto.ErrAttachment) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(fmt.Sprint(err), secret[:8]) {
			t.Errorf("%s: the error tells the key", name)
		}
	}
	if _, _, err := (crypto.Attachments{}).Attachment(nil); !errors.Is(err, crypto.ErrAttachment) {
		t.Error(err)
	}
}

func BenchmarkAttachment(b *testing.B) {
	data := make([]byte, 64<<10)
	file, _ := encrypt(data)
	_, decrypt, err := crypto.Attachments{}.Attachment(file)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for at := int64(0); b.Loop(); at += int64(len(data)) {
		decrypt(data, at)
	}
}
