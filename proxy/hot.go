package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxHot is how many files of the cache stay open, or in memory when they are small, from one reader to the next. In memory that is at most maxHot chunks.
const maxHot = 64

// hotFile is a whole file that was opened and checked. Any number of readers share it.
type hotFile struct {
	header
	head []byte   // the bytes at its beginning; of a small file all of them
	file *os.File // nil: it is small
	fd   int

	users int // the cache itself, and each reader; under the cache's lock
}

// openHot opens a file and checks its length and its header.
func openHot(path string) (*hotFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h, err := readHot(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s of the cache: %w", filepath.Base(path), err), f.Close())
	}
	if h.size <= chunk {
		return h, f.Close()
	}
	h.file, h.fd = f, int(f.Fd())
	return h, nil
}

func readHot(f *os.File) (*hotFile, error) {
	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	if _, err := io.ReadFull(f, (*buffer)[:headerSize]); err != nil {
		return nil, err
	}
	h, err := decodeHeader((*buffer)[:headerSize])
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != headerSize+h.size {
		return nil, errBadFile
	}
	n := h.size
	if n > chunk {
		n = sniffSize
	}
	if _, err := io.ReadFull(f, (*buffer)[:n]); err != nil {
		return nil, err
	}
	return &hotFile{header: h, head: bytes.Clone((*buffer)[:n])}, nil
}

// warm opens an object's file, unless it is open. The lock is held.
func (c *cache) warm(o *object) (*hotFile, error) {
	if o.hot != nil {
		c.hot.MoveToFront(o.hot)
		return o.opened, nil
	}
	h, err := openHot(o.path)
	if err != nil {
		return nil, err
	}
	h.users = 1
	o.opened, o.hot = h, c.hot.PushFront(o)
	if c.hot.Len() > maxHot {
		c.cool(c.hot.Back().Value.(*object))
	}
	return h, nil
}

// cool closes an object's file when its last reader has gone. The lock is held.
func (c *cache) cool(o *object) {
	if o.hot == nil {
		return
	}
	c.hot.Remove(o.hot)
	c.drop(o.opened)
	o.hot, o.opened = nil, nil
}

// drop gives up one use of a file. The lock is held.
func (c *cache) drop(h *hotFile) {
	if h.users--; h.users == 0 && h.file != nil {
		_ = h.file.Close() // it was only read
	}
}

// cachedFile is a hot file as one reader has it.
type cachedFile struct {
	*hotFile
	cache *cache
	at    int64
}

func (f *cachedFile) about() (int64, string) { return f.size, f.contentType }

func (f *cachedFile) Read(p []byte) (n int, err error) {
	switch {
	case f.at >= f.size:
		return 0, io.EOF
	case f.file == nil:
		n = copy(p, f.head[f.at:])
	default:
		if n, err = f.file.ReadAt(p[:min(int64(len(p)), f.size-f.at)], headerSize+f.at); n > 0 {
			err = nil
		} else if err == io.EOF { // somebody cut it
			err = io.ErrUnexpectedEOF
		}
	}
	f.at += int64(n)
	return n, err
}

func (f *cachedFile) skip(n int64) error {
	f.at += n
	return nil
}

func (f *cachedFile) Close() error {
	f.cache.mu.Lock()
	defer f.cache.mu.Unlock()
	if f.hotFile != nil {
		f.cache.drop(f.hotFile)
		f.hotFile = nil
	}
	return nil
}
