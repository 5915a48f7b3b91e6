package lanes

// Map holds something for each of some lanes. Unlike Go's own maps it gives memory back when most of them are gone: what
// 50,000 rooms took is free again once they are quiet. The zero value is empty. It is not safe for concurrent use.
type Map[V any] struct {
	m    map[string]V
	peak int // the most there have been since m was made
}

// shrinkFrom is how many lanes a map must have had to be worth making anew.
const shrinkFrom = 4096

// Get gives what a lane has, and whether it has something.
func (m *Map[V]) Get(lane string) (V, bool) {
	v, ok := m.m[lane]
	return v, ok
}

// Set gives a lane something.
func (m *Map[V]) Set(lane string, v V) {
	if m.m == nil {
		m.m = make(map[string]V)
	}
	m.m[lane] = v
	m.peak = max(m.peak, len(m.m))
}

// Delete takes it away.
func (m *Map[V]) Delete(lane string) {
	delete(m.m, lane)
	if m.peak < shrinkFrom || len(m.m) > m.peak/8 {
		return
	}
	// Each copied lane stands for seven that were deleted before.
	smaller := make(map[string]V, len(m.m))
	for lane, v := range m.m {
		smaller[lane] = v
	}
	m.m, m.peak = smaller, len(smaller)
}

// Len says how many lanes have something.
func (m *Map[V]) Len() int { return len(m.m) }

// All goes over them in no order.
func (m *Map[V]) All(yield func(lane string, v V) bool) {
	for lane, v := range m.m {
		if !yield(lane, v) {
			return
		}
	}
}
