package lanes

// Room is how many lanes the map was made for, at most.
func Room[V any](m *Map[V]) int { return m.peak }
