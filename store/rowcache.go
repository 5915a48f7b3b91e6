package store

import (
	"container/list"
	"sync"
)

// rowCacheBytes bounds the bodies of inbox rows kept in memory. Lanes of one row read it one after the other.
const rowCacheBytes = 4 << 20

// cachedRow is an inbox row as workers read it.
type cachedRow struct {
	seq   int64
	index *rowIndex
	body  []byte
	// loaded: from the database, as opposed to what has just come in.
	loaded bool
}

func (r *cachedRow) size() int {
	return len(r.body) + 56*len(r.index.elements) + 64*len(r.index.lanes) + 512
}

// rowCache is an LRU by bytes: of what is read back. What comes in new is kept when there is room, because as a rule it
// is worked on at once; where there is none there is a backlog, and older rows are wanted before it. A row larger than
// the limit is kept until the next one is read, because its elements are asked for one by one. Any goroutine may call it.
type rowCache struct {
	limit int

	mu      sync.Mutex
	order   *list.List // of *cachedRow, newest first
	rows    map[int64]*list.Element
	size    int
	loading map[int64]*rowLoad
}

type rowLoad struct {
	done chan struct{}
	row  *cachedRow
	err  error
}

func newRowCache(limit int) *rowCache {
	return &rowCache{limit: limit, order: list.New(), rows: map[int64]*list.Element{}, loading: map[int64]*rowLoad{}}
}

// get gives the row from memory or from load. Of those who ask for the same row at once, one loads.
func (c *rowCache) get(seq int64, load func() (*cachedRow, error)) (*cachedRow, error) {
	c.mu.Lock()
	if e, ok := c.rows[seq]; ok {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cachedRow), nil
	}
	if l, ok := c.loading[seq]; ok {
		c.mu.Unlock()
		<-l.done
		if l.err == nil {
			return l.row, nil
		}
		return load() // the other's context may have ended; ours has not
	}
	l := &rowLoad{done: make(chan struct{})}
	c.loading[seq] = l
	c.mu.Unlock()

	l.row, l.err = load()
	close(l.done)
	c.mu.Lock()
	delete(c.loading, seq)
	if l.err == nil {
		c.putLocked(l.row)
	}
	c.mu.Unlock()
	return l.row, l.err
}

// put offers a row that came in.
func (c *rowCache) put(row *cachedRow) {
	c.mu.Lock()
	if c.order.Len() == 0 || c.size+row.size() <= c.limit {
		c.putLocked(row)
	}
	c.mu.Unlock()
}

func (c *rowCache) putLocked(row *cachedRow) {
	if _, ok := c.rows[row.seq]; ok {
		return
	}
	c.rows[row.seq] = c.order.PushFront(row)
	c.size += row.size()
	for c.size > c.limit && c.order.Len() > 1 {
		c.removeLocked(c.order.Back())
	}
}

func (c *rowCache) drop(seq int64) {
	c.mu.Lock()
	if e, ok := c.rows[seq]; ok {
		c.removeLocked(e)
	}
	c.mu.Unlock()
}

func (c *rowCache) removeLocked(e *list.Element) {
	row := c.order.Remove(e).(*cachedRow)
	delete(c.rows, row.seq)
	c.size -= row.size()
}
