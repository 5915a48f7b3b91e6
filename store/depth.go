package store

import (
	"context"
	"time"
)

// Depth is how much lies in the store for somebody to see to.
type Depth struct {
	DeadLetters  int64
	Outbox       int64     // rows that wait for the homeserver
	Parked       int64     // events that wait for their key
	OldestOutbox time.Time // zero: there is none
	OldestInbox  time.Time // when the oldest transaction came that is not handled to its end; zero: there is none
}

// Depth reads it. It is cheap enough for every scrape: no row is read but the two oldest, and what is counted is counted
// without its bodies.
func (s *Store) Depth(ctx context.Context) (Depth, error) {
	var d Depth
	err := s.one(ctx, []any{&d.DeadLetters, &d.Outbox, &d.Parked, moment{&d.OldestOutbox}, moment{&d.OldestInbox}},
		`SELECT (SELECT COUNT(*) FROM dead_letter), (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM parked),
			COALESCE((SELECT created FROM outbox ORDER BY id LIMIT 1), 0),
			COALESCE((SELECT received FROM inbox ORDER BY seq LIMIT 1), 0)`)
	return d, doing(err, "counting what waits")
}
