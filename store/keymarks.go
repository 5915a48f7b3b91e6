package store

import "sync"

// marks are the times, in numbers, at which users' devices were marked as outdated, or room keys were dropped. What a homeserver says of devices may have been
// asked before such a mark: then it must not take it away; and a room key may be under way to who was to have it before: then it must not be used. Nothing is
// undone here with a job: one mark too many costs a question, or a key.
type marks struct {
	mu    sync.Mutex
	last  uint64
	all   uint64 // the number up to which every name is taken to be marked
	names map[string]uint64
}

// maxMarks is how many are known by name.
const maxMarks = 10_000

func (m *marks) mark(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	if len(m.names) >= maxMarks {
		m.all, m.names = m.last, nil
	}
	if m.names == nil {
		m.names = map[string]uint64{}
	}
	m.names[name] = m.last
}

func (m *marks) markAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	m.all, m.names = m.last, nil
}

func (m *marks) now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// since says whether a name was marked after that number.
func (m *marks) since(name string, mark uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.all, m.names[name]) > mark
}

// DeviceMarks is a point in time for [Tx.KeepDevicesOutdated].
func (s *Store) DeviceMarks() uint64 { return s.marks.now() }

// KeyDrops is a point in time for [Tx.KeysDropped]: what is read of the store after it is not older than it.
func (s *Store) KeyDrops() uint64 { return s.drops.now() }

// KeysDropped says whether the keys of a room were dropped after a [Store.KeyDrops], or, by a user's name, those of the rooms of the user: a key that was
// made in between is not for those who read now.
func (tx *Tx) KeysDropped(since uint64, name string) bool { return tx.w.store.drops.since(name, since) }

// markDrop has the drop known at once, to the jobs behind this one, and once more when it is durable: who has read the store before then has not seen why.
func (tx *Tx) markDrop(mark func(drops *marks)) {
	drops := &tx.w.store.drops
	mark(drops)
	tx.AfterCommit(func() { mark(drops) })
}
