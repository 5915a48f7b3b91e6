package proxy

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/internal/filelock"
)

const (
	// maxIdle is how many fetches go on without a reader: who looked at the beginning of a film often comes back for the rest.
	maxIdle = 4
	// touchEvery is how often the time of a file's last use is written to the disk, where it orders the files at the next start.
	touchEvery = time.Hour
)

// cache keeps the homeserver's files on disk, the least recently used leaving first, and makes one fetch of many readers' wishes.
//
// Without a folder of its own it keeps nothing: it is then only where encrypted files wait for their last byte.
type cache struct {
	dir     string
	keep    bool
	limit   int64         // bytes on disk, unfinished files included
	most    int64         // bytes of one file, when its length is not known before
	age     time.Duration // since it was fetched
	total   time.Duration // of one fetch
	now     func() time.Time
	log     zerolog.Logger
	metrics *metrics
	lock    *os.File

	mu      sync.Mutex
	objects map[cacheKey]*list.Element // of *object
	recent  *list.List                 // the last one used in front
	hot     *list.List                 // of those that are open, likewise
	used    int64
	oldest  time.Time // no object was fetched before; zero: there is none
	spools  map[cacheKey]*spool
	idle    []*spool   // without a reader, the longest first
	spare   []*os.File // files without a name that wait for their next use
	closed  bool
	running sync.WaitGroup
}

// object is a whole file.
type object struct {
	key     cacheKey
	path    string
	size    int64 // on disk
	fetched time.Time
	touched time.Time

	opened *hotFile      // nil: it is not open
	hot    *list.Element // its place among those that are
}

// openCache opens the folder, or makes it, and learns what is in it. Without dir nothing is kept.
func openCache(dir string, limit, most int64, age, total time.Duration, now func() time.Time, log zerolog.Logger, m *metrics) (*cache, error) {
	c := &cache{
		dir: dir, keep: dir != "", limit: limit, most: most, age: age, total: total, now: now, log: log, metrics: m,
		objects: make(map[cacheKey]*list.Element), recent: list.New(), hot: list.New(), spools: make(map[cacheKey]*spool),
	}
	if !c.keep {
		c.dir, c.limit = os.TempDir(), max(4*most, 1<<30)
		return c, nil
	}
	if runtime.GOOS == "windows" {
		return nil, errors.New("the cache of the media proxy renames files that are being read, which Windows does not do: leave it off")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the media cache: %w", err)
	}
	// Another user could otherwise read the files.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep the folder of the media cache private: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the media cache: %w: its folder must be writable", err)
	}
	free, err := filelock.Try(lock)
	if err == nil && !free {
		err = errors.New("another process has it: give each process a folder of its own")
	}
	if err == nil {
		err = c.scan()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the media cache in %s: %w", dir, err), lock.Close())
	}
	c.lock = lock
	return c, nil
}

// scan learns what is there, and deletes what was not finished. Files that are none of the cache's are left alone.
func (c *cache) scan() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var found []*object
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		if strings.HasPrefix(e.Name(), partialPrefix) {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		key, fetched, ok := parseFileName(e.Name())
		info, err := e.Info()
		if !ok || err != nil || !info.Mode().IsRegular() {
			continue
		}
		found = append(found, &object{key: key, path: path, size: info.Size(), fetched: fetched, touched: info.ModTime()})
	}
	slices.SortFunc(found, func(a, b *object) int {
		return cmp.Or(a.touched.Compare(b.touched), a.fetched.Compare(b.fetched))
	})
	for _, o := range found {
		c.insert(o)
	}
	c.sweep()
	c.makeRoom(0)
	return nil
}

// sweep deletes what is too old to be given out, also when nobody asks for it any more. It costs nothing while there is no such file.
func (c *cache) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.oldest.IsZero() || now.Sub(c.oldest) < c.age {
		return
	}
	c.oldest = time.Time{}
	for _, e := range c.objects {
		if o := e.Value.(*object); now.Sub(o.fetched) >= c.age {
			c.remove(e, "age")
		} else if c.oldest.IsZero() || o.fetched.Before(c.oldest) {
			c.oldest = o.fetched
		}
	}
}

// insert makes an object the last one used, in place of another of its key.
func (c *cache) insert(o *object) {
	if old := c.objects[o.key]; old != nil {
		c.remove(old, "")
	}
	c.objects[o.key] = c.recent.PushFront(o)
	c.used += o.size
	if c.oldest.IsZero() || o.fetched.Before(c.oldest) {
		c.oldest = o.fetched
	}
	c.measure()
}

// remove deletes an object. Who reads it goes on.
func (c *cache) remove(e *list.Element, why string) {
	o := e.Value.(*object)
	c.cool(o)
	c.recent.Remove(e)
	delete(c.objects, o.key)
	c.used -= o.size
	if err := os.Remove(o.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Error().Err(err).Msg("A file of the media cache cannot be deleted")
	}
	if why != "" {
		c.metrics.removed.WithLabelValues(why).Inc()
	}
	c.measure()
}

func (c *cache) measure() {
	c.metrics.cacheBytes.Set(float64(c.used))
	c.metrics.cacheFiles.Set(float64(len(c.objects)))
}

// makeRoom deletes until there is room for n more bytes, and tells whether there is.
func (c *cache) makeRoom(n int64) bool {
	for c.used+n > c.limit {
		last := c.recent.Back()
		if last == nil {
			return false
		}
		c.remove(last, "room")
	}
	return true
}

// reserve sets disk aside for a file that is coming, and says how much.
func (c *cache) reserve(size int64) (int64, bool) {
	n := size
	if n < 0 {
		n = c.most
	}
	n += headerSize
	c.mu.Lock()
	defer c.mu.Unlock()
	// One file must not sweep out all the others.
	if n > c.limit/2 || !c.makeRoom(n) {
		return 0, false
	}
	c.used += n
	c.measure()
	return n, true
}

func (c *cache) unreserve(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used -= n
	c.measure()
}

// find opens a whole file, if there is one. The lock is held.
func (c *cache) find(key cacheKey) *cachedFile {
	e := c.objects[key]
	if e == nil || c.closed {
		return nil
	}
	o, now := e.Value.(*object), c.now()
	if now.Sub(o.fetched) >= c.age {
		c.remove(e, "age")
		return nil
	}
	h, err := c.warm(o)
	if err != nil {
		c.log.Warn().Err(err).Msg("A file of the media cache is not usable, and is fetched again")
		c.remove(e, "broken")
		return nil
	}
	c.recent.MoveToFront(e)
	if now.Sub(o.touched) >= touchEvery {
		o.touched = now
		_ = os.Chtimes(o.path, time.Time{}, now) // only the order after the next start hangs on it
	}
	h.users++
	return &cachedFile{hotFile: h, cache: c}
}

// discard keeps nothing of a file any more: neither what is there nor what is on its way. Who reads it goes on.
func (c *cache) discard(key cacheKey, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.objects[key]; e != nil {
		c.remove(e, why)
	}
	if sp := c.spools[key]; sp != nil {
		// Whoever asks next begins a fetch of its own.
		sp.discard = true
		delete(c.spools, key)
		if sp.readers == 0 {
			c.abandon(sp)
		}
	}
}

// close ends the fetches under way. Files that are open stay readable.
func (c *cache) close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for _, sp := range c.spools {
		sp.cancel(errAbandoned)
	}
	c.mu.Unlock()
	c.running.Wait()
	c.mu.Lock()
	for c.hot.Len() > 0 {
		c.cool(c.hot.Back().Value.(*object))
	}
	for _, f := range c.spare {
		_ = f.Close() // nothing of it is needed
	}
	c.spare = nil
	c.mu.Unlock()
	if c.lock == nil {
		return nil
	}
	return c.lock.Close()
}

func (c *cache) isEmpty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.objects) == 0 && len(c.spools) == 0
}

func (c *cache) discardAll(why string) {
	c.mu.Lock()
	var keys []cacheKey
	for key := range c.objects {
		keys = append(keys, key)
	}
	for key := range c.spools {
		keys = append(keys, key)
	}
	c.mu.Unlock()
	for _, key := range keys {
		c.discard(key, why)
	}
}
