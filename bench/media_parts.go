package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/payload"
)

// secret is encrypted media in one round: served from the cache, fetched and served, and what of it cannot be saved.
type secret struct {
	cached, fetched download
	memory          float64 // AES-CTR and SHA-256 of the same bytes in memory, in bytes a second on one processor
}

// encrypted serves an encrypted file to one reader: twice from the cache, and once by the process that has none.
func (m *mediaBench) encrypted(ctx context.Context, round int) (err error) {
	name := encryptedName(encryptedSize)
	if err = m.keep(ctx, name, encryptedSize); err != nil {
		return err
	}
	if round == 0 { // the upstream makes the file when it is first asked for it
		if _, err = once(ctx, m.direct, m.link(m.direct, name), encryptedSize); err != nil {
			return err
		}
	}
	var s secret
	if s.memory, err = inMemory(encryptedSize); err != nil {
		return err
	}
	if s.cached, err = readers(ctx, m.disk, m.link(m.disk, name), encryptedSize, 1, mediaLength); err != nil {
		return err
	}
	if s.fetched, err = readers(ctx, m.direct, m.link(m.direct, name), encryptedSize, 1, 2*mediaLength); err != nil {
		return err
	}
	after, err := inMemory(encryptedSize)
	s.memory = (s.memory + after) / 2
	m.secret = append(m.secret, s)
	return err
}

// inMemory decrypts and hashes in pieces that stay in the processor's cache, which is as fast as it goes.
func inMemory(size int64) (bytesPerSecond float64, err error) {
	var data bytes.Buffer
	if err = payload.Write(&data, size); err != nil {
		return 0, err
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return 0, err
	}
	stream, hash, rest := cipher.NewCTR(block, make([]byte, aes.BlockSize)), sha256.New(), data.Bytes()
	begun := time.Now()
	for len(rest) > 0 {
		piece := rest[:min(len(rest), 64<<10)]
		hash.Write(piece)
		stream.XORKeyStream(piece, piece)
		rest = rest[len(piece):]
	}
	return float64(size) / time.Since(begun).Seconds(), nil
}

// growth is what the memory of a process grew by while it served a large file.
type growth struct {
	what  string
	bytes int64
}

// large serves 1 GiB to one reader and watches the memory.
func (m *mediaBench) large(ctx context.Context) error {
	name := plainName(largeSize)
	for _, step := range []struct {
		what string
		c    *child
	}{{"without a cache", m.direct}, {"fetched into the cache", m.disk}, {"from the cache", m.disk}} {
		progress("1 GiB %s", step.what)
		before := m.idle[step.c]
		if err := step.c.forgetPeak(); err != nil {
			return fmt.Errorf("watch the memory: %w", err)
		}
		if _, err := once(ctx, step.c, m.link(step.c, name), largeSize); err != nil {
			return err
		}
		_, peak := step.c.memory()
		if before > 0 {
			m.growth = append(m.growth, growth{step.what, peak - before})
		}
		if step.c == m.disk {
			if err := m.keep(ctx, name, largeSize); err != nil {
				return err
			}
		}
	}
	return nil
}

var linkCheckLine = regexp.MustCompile(`BenchmarkProxy02_LinkCheck\S*\s+\d+\s+([0-9.]+) ns/op\s+([0-9.]+) x-hmac`)

// linkCheck lets the proxy's own benchmark say what the check of a link costs, for it is nothing that one could ask for from outside.
func (m *mediaBench) linkCheck(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-tags", "goolm", "-run", "^$", "-bench", "^BenchmarkProxy02_LinkCheck$", "-benchtime", "300ms", module+"/proxy")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("measure the check of a link: %w: %s", err, out)
	}
	found := linkCheckLine.FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("measure the check of a link: it says %q", out)
	}
	nanoseconds, err1 := strconv.ParseFloat(string(found[1]), 64)
	ratio, err2 := strconv.ParseFloat(string(found[2]), 64)
	m.linkNanoseconds, m.linkRatio = nanoseconds, ratio
	return errors.Join(err1, err2)
}
