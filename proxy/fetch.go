package proxy

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// content is the bytes of a file, wherever they come from: the homeserver (media), a fetch under way (follower), or the disk (cachedFile).
type content interface {
	io.ReadCloser
	about() (size int64, contentType string) // size -1: not known; contentType as the homeserver declares it
}

// skipper is content that moves forward without reading.
type skipper interface{ skip(n int64) error }

// fetching is content that the homeserver sends for this request, and would send again for the next.
type fetching interface{ fetched() int64 } // bytes so far

var (
	_ content = (*media)(nil)
	_ content = (*follower)(nil)
	_ content = (*cachedFile)(nil)
	_ skipper = (*follower)(nil)
	_ skipper = (*cachedFile)(nil)

	_ fetching = (*media)(nil)
	_ fetching = (*follower)(nil)
)

// maxSpare is how many files wait for their next use, each of up to maxVerifyFirst bytes.
const maxSpare = 2

var (
	errAbandoned = errors.New("nobody waits for the file")
	errNoRoom    = errors.New("the cache has no room for the file")
)

// fetcher asks the homeserver for a file.
type fetcher func(ctx context.Context) (*media, error)

// peek opens a file that is there or on its way; nil when it is neither.
func (c *cache) peek(ctx context.Context, key cacheKey) content {
	c.mu.Lock()
	if f := c.find(key); f != nil {
		c.mu.Unlock()
		c.metrics.cache.WithLabelValues("hit").Inc()
		return f
	}
	sp := c.spools[key]
	if sp == nil {
		c.mu.Unlock()
		return nil
	}
	c.join(sp)
	c.mu.Unlock()
	f, err := c.follow(ctx, sp)
	if err != nil {
		c.leave(sp)
		return nil
	}
	c.metrics.cache.WithLabelValues("joined").Inc()
	return f
}

// open opens a file that is there, follows a fetch under way, or begins one. Where the disk has no room, the homeserver's answer comes as it is.
func (c *cache) open(ctx context.Context, key cacheKey, fetch fetcher) (content, error) {
	c.mu.Lock()
	if ctx.Err() != nil { // whoever cut the answer may have emptied the cache already
		c.mu.Unlock()
		return nil, context.Cause(ctx)
	}
	if f := c.find(key); f != nil {
		c.mu.Unlock()
		c.metrics.cache.WithLabelValues("hit").Inc()
		return f, nil
	}
	sp, result := c.spools[key], "joined"
	if sp == nil {
		if c.closed {
			c.mu.Unlock()
			return fetch(ctx)
		}
		result = "miss"
		sp = &spool{key: key, direct: make(chan *media, 1), over: make(chan struct{}), handles: 1}
		sp.ctx, sp.cancel = context.WithCancelCause(context.Background())
		c.spools[key] = sp
		c.running.Go(func() { c.fetch(sp, fetch) })
	}
	c.join(sp)
	c.mu.Unlock()
	f, err := c.follow(ctx, sp)
	if err == nil {
		c.metrics.cache.WithLabelValues(result).Inc()
		return f, nil
	}
	var m *media
	select {
	case m = <-sp.direct:
	default:
	}
	c.leave(sp)
	switch {
	case m != nil:
		// It was begun for whoever came first. Now it is this reader's, and ends with it.
		context.AfterFunc(ctx, m.end)
	case errors.Is(err, errNoRoom), errors.Is(err, errDisk):
		if m, err = fetch(ctx); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	c.metrics.cache.WithLabelValues("passed").Inc()
	return m, nil
}

// join keeps a spool and its file for a reader, until he leaves.
func (c *cache) join(sp *spool) {
	sp.readers++
	sp.retain()
	if i := slices.Index(c.idle, sp); i >= 0 {
		c.idle = slices.Delete(c.idle, i, i+1)
	}
}

// follow waits until it is known what comes. After an error the caller leaves.
func (c *cache) follow(ctx context.Context, sp *spool) (*follower, error) {
	if err := sp.wait(ctx, func() bool { return sp.begun }); err != nil {
		return nil, err
	}
	return &follower{cache: c, spool: sp, ctx: ctx}, nil
}

// leave ends one reader's interest. A fetch that nobody follows goes on for a while if the file is to be kept.
func (c *cache) leave(sp *spool) {
	defer sp.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	if sp.readers--; sp.readers > 0 {
		return
	}
	select {
	case m := <-sp.direct:
		m.Close()
	default:
	}
	switch {
	case sp.ended:
	case !c.keep, sp.discard:
		c.abandon(sp)
	default:
		c.idle = append(c.idle, sp)
		if len(c.idle) > maxIdle {
			c.abandon(c.idle[0])
		}
	}
}

func (c *cache) abandon(sp *spool) {
	c.endLocked(sp)
	sp.cancel(errAbandoned)
}

// fetch fills a spool, on a goroutine of its own.
func (c *cache) fetch(sp *spool, fetch fetcher) {
	defer sp.release()
	ctx, cancel := context.WithTimeoutCause(sp.ctx, c.total, errTotal)
	m, err := fetch(ctx)
	if err != nil {
		cancel()
		c.end(sp)
		sp.fail(err)
		return
	}
	inner := m.end
	m.end = func() { inner(); cancel() }
	size, contentType := m.about()
	reserved, ok := c.reserve(size)
	if !ok {
		c.pass(sp, m, errNoRoom)
		return
	}
	file, path, err := c.create(size)
	if err != nil {
		c.log.Error().Err(err).Msg("The media cache cannot write; files are passed on without it")
		c.unreserve(reserved)
		c.pass(sp, m, errDisk)
		return
	}
	kept := false
	sp.begin(file, path, func(path string) {
		c.recycle(file, path)
		if !kept {
			c.unreserve(reserved)
		}
	}, size, contentType)
	err = sp.fill(m)
	m.Close()
	if err != nil {
		if errors.Is(err, errDisk) {
			c.log.Error().Err(err).Msg("The media cache cannot write")
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		c.end(sp)
		sp.fail(err)
		return
	}
	if kept, err = c.name(sp, reserved); err != nil {
		c.log.Error().Err(err).Msg("The media cache cannot keep a file")
	}
	c.end(sp)
}

// create makes a file for bytes that come. path is empty where it has no name, so that nothing of it is left when the process is killed.
func (c *cache) create(size int64) (file *os.File, path string, err error) {
	c.mu.Lock()
	if n := len(c.spare); n > 0 {
		file, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	c.mu.Unlock()
	if file == nil {
		if file, err = os.CreateTemp(c.dir, partialPrefix+"*"); err != nil {
			return nil, "", err
		}
		if path = file.Name(); !c.keep && os.Remove(path) == nil {
			path = ""
		}
	}
	if err = reserveDisk(file, size); err != nil {
		giveUp(file, path)
		return nil, "", err
	}
	return file, path, nil
}

// recycle gives up a file that nobody uses any more. Without a cache a few stay for the next use: to write over a file's bytes costs half of what new ones do.
func (c *cache) recycle(file *os.File, path string) {
	if info, err := file.Stat(); !c.keep && path == "" && err == nil && info.Size() <= headerSize+maxVerifyFirst {
		c.mu.Lock()
		keep := !c.closed && len(c.spare) < maxSpare
		if keep {
			c.spare = append(c.spare, file)
		}
		c.mu.Unlock()
		if keep {
			return
		}
	}
	giveUp(file, path)
}

func giveUp(file *os.File, path string) {
	_ = file.Close() // nothing is written any more
	if path != "" {
		_ = os.Remove(path) // what stays behind is deleted at the next start
	}
}

// pass gives an answer of the homeserver to one of those who wait. The others ask for themselves.
func (c *cache) pass(sp *spool, m *media, why error) {
	c.mu.Lock()
	c.endLocked(sp)
	if sp.readers > 0 {
		sp.direct <- m
	} else {
		m.Close()
	}
	c.mu.Unlock()
	sp.fail(why)
}

// end takes a spool off the list: nobody can join it any more.
func (c *cache) end(sp *spool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(sp)
}

func (c *cache) endLocked(sp *spool) {
	sp.ended = true
	if c.spools[sp.key] == sp {
		delete(c.spools, sp.key)
	}
	if i := slices.Index(c.idle, sp); i >= 0 {
		c.idle = slices.Delete(c.idle, i, i+1)
	}
}

// name makes a finished file one of the cache's: first the disk has all of it, then it gets its name.
func (c *cache) name(sp *spool, reserved int64) (bool, error) {
	if !c.keep {
		return false, nil
	}
	if _, err := sp.file.WriteAt(sp.header.encode(), 0); err != nil {
		return false, err
	}
	if err := sp.file.Sync(); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if sp.discard {
		return false, nil
	}
	now := c.now()
	o := &object{key: sp.key, path: filepath.Join(c.dir, fileName(sp.key, now)), size: headerSize + sp.header.size, fetched: now, touched: now}
	if err := os.Rename(sp.path, o.path); err != nil {
		return false, err
	}
	sp.named()
	c.used -= reserved
	c.insert(o)
	return true, nil
}
