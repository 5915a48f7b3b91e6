package store

import "sync"

// marks are the times, in numbers, at which users' devices were marked as outdated. What a homeserver says of devices may have been asked before such a mark:
// then it must not take it away. Nothing is undone here with a job: one mark too many costs a question.
type marks struct {
	mu    sync.Mutex
	last  uint64
	all   uint64 // the number up to which every user is taken to be marked
	users map[string]uint64
}

// maxMarks is how many users are known by name.
const maxMarks = 10_000

func (m *marks) mark(user string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	if len(m.users) >= maxMarks {
		m.all, m.users = m.last, nil
	}
	if m.users == nil {
		m.users = map[string]uint64{}
	}
	m.users[user] = m.last
}

func (m *marks) markAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	m.all, m.users = m.last, nil
}

// DeviceMarks is a point in time for [Tx.KeepDevicesOutdated].
func (s *Store) DeviceMarks() uint64 {
	s.marks.mu.Lock()
	defer s.marks.mu.Unlock()
	return s.marks.last
}

// since says whether a user was marked after that number.
func (m *marks) since(user string, mark uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.all, m.users[user]) > mark
}
