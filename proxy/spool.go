package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
)

// errDisk says that the cache's disk failed. The homeserver is then asked without it.
var errDisk = errors.New("the cache cannot write")

// spool is a file on its way from the homeserver: one goroutine fills it, any number of readers follow.
type spool struct {
	key     cacheKey
	ctx     context.Context // of the fetch; a reader that leaves does not end it
	cancel  context.CancelCauseFunc
	readers int  // the cache's, under its lock
	discard bool // the cache's: the file is not to be kept
	ended   bool // the cache's: nobody joins any more
	direct  chan *media
	over    chan struct{} // closed when the fetch has ended, well or not

	mu      sync.Mutex
	changed chan struct{} // closed when anything below changes; nil while nobody waits
	begun   bool          // size, contentType and file are set
	file    *os.File
	path    string            // where file is, until it has got its name; "": it is not to be deleted
	closed  func(path string) // called when nobody uses file any more
	handles int               // the fetch and each reader
	header  header
	written int64
	done    bool // all is written, and header is whole
	err     error
}

func (sp *spool) signal() {
	if sp.changed != nil {
		close(sp.changed)
		sp.changed = nil
	}
}

// begin says what is coming. size is -1 where the homeserver does not say.
func (sp *spool) begin(file *os.File, path string, closed func(path string), size int64, contentType string) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.path, sp.closed = path, closed
	sp.begun, sp.file, sp.header.size, sp.header.contentType = true, file, size, contentType
	sp.signal()
}

// fill copies the media into the file. Who follows sees each piece once it is written. A piece is hashed while the next one comes.
func (sp *spool) fill(m *media) error {
	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	halves := [2][]byte{(*buffer)[:chunk/2], (*buffer)[chunk/2:]}
	hash := startHashing()
	defer hash.end()
	for at, i := int64(0), 0; ; i = 1 - i {
		n, err := m.Read(halves[i])
		if n > 0 {
			if _, werr := sp.file.WriteAt(halves[i][:n], headerSize+at); werr != nil {
				return fmt.Errorf("%w: %w", errDisk, werr)
			}
			hash.write(halves[i][:n])
			at += int64(n)
			sp.mu.Lock()
			sp.written = at
			sp.signal()
			sp.mu.Unlock()
		}
		if err == io.EOF {
			if size, _ := m.about(); size >= 0 && size != at {
				return io.ErrUnexpectedEOF
			}
			sum := hash.sum()
			sp.mu.Lock()
			defer sp.mu.Unlock()
			sp.header.size, sp.header.sum, sp.done = at, sum, true
			sp.signal()
			close(sp.over)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hashing hashes on a goroutine of its own, one piece behind.
type hashing struct {
	pieces chan []byte
	done   chan struct{}
	hash   hash.Hash // of the goroutine while a piece is under way
	busy   bool
}

func startHashing() *hashing {
	h := &hashing{make(chan []byte, 1), make(chan struct{}, 1), sha256.New(), false}
	go func() {
		for p := range h.pieces {
			h.hash.Write(p)
			h.done <- struct{}{}
		}
	}()
	return h
}

// write waits for the piece before, so that its bytes may be overwritten, and begins this one.
func (h *hashing) write(p []byte) {
	h.wait()
	h.busy = true
	h.pieces <- p
}

func (h *hashing) wait() {
	if h.busy {
		<-h.done
		h.busy = false
	}
}

func (h *hashing) sum() (sum [sha256.Size]byte) {
	h.wait()
	h.hash.Sum(sum[:0])
	return sum
}

// end must be called before the pieces' memory is used for anything else.
func (h *hashing) end() {
	h.wait()
	close(h.pieces)
}

func (sp *spool) fail(err error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.err = err
	sp.signal()
	close(sp.over)
}

func (sp *spool) retain() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.handles++
}

// release gives up the file, and closes it with the last one who does.
func (sp *spool) release() {
	sp.mu.Lock()
	sp.handles--
	last, file, path, closed := sp.handles == 0, sp.file, sp.path, sp.closed
	sp.mu.Unlock()
	if last && file != nil {
		closed(path)
	}
}

// named says that the file has got its name, and stays.
func (sp *spool) named() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.path = ""
}

// wait returns when is() holds, under the spool's lock, or the fetch has failed, or ctx has ended.
func (sp *spool) wait(ctx context.Context, is func() bool) error {
	for {
		sp.mu.Lock()
		if is() {
			sp.mu.Unlock()
			return nil
		}
		if sp.err != nil {
			defer sp.mu.Unlock()
			return sp.err
		}
		if sp.changed == nil {
			sp.changed = make(chan struct{})
		}
		changed := sp.changed
		sp.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follower reads a spool while it is filled, and afterwards.
type follower struct {
	cache *cache
	spool *spool
	ctx   context.Context // the reader's
	at    int64
	want  *[sha256.Size]byte // what the bytes must hash to; nil: anything
	held  int64              // bytes at the end that are not given out before they do
	once  sync.Once
}

func (f *follower) about() (int64, string) {
	f.spool.mu.Lock()
	defer f.spool.mu.Unlock()
	return f.spool.header.size, f.spool.header.contentType
}

// fetched counts the file for each reader where the next one would have it fetched again.
func (f *follower) fetched() int64 {
	if f.cache.keep {
		return 0
	}
	f.spool.mu.Lock()
	defer f.spool.mu.Unlock()
	return f.spool.written
}

// whole waits for all of the file and returns its SHA-256. It is not woken at each piece, as who reads is.
func (f *follower) whole() (sum [sha256.Size]byte, err error) {
	select {
	case <-f.spool.over:
	case <-f.ctx.Done():
		return sum, context.Cause(f.ctx)
	}
	f.spool.mu.Lock()
	defer f.spool.mu.Unlock()
	return f.spool.header.sum, f.spool.err
}

func (f *follower) Read(p []byte) (int, error) {
	var there int64
	var done bool
	err := f.spool.wait(f.ctx, func() bool {
		done = f.spool.done
		if there = f.spool.written - f.at; !done {
			there -= f.held
		}
		return done || there > 0
	})
	if err != nil {
		return 0, err
	}
	if done && f.want != nil {
		if f.spool.header.sum != *f.want { // it is not written any more
			return 0, errTampered
		}
		f.want, f.held = nil, 0
	}
	if there <= 0 {
		return 0, io.EOF
	}
	n, err := f.spool.file.ReadAt(p[:min(int64(len(p)), there)], headerSize+f.at)
	f.at += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}

func (f *follower) skip(n int64) error {
	f.at += n
	return nil
}

func (f *follower) Close() error {
	f.once.Do(func() { f.cache.leave(f.spool) })
	return nil
}
