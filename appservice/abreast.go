package appservice

import (
	"math"
	"sync"

	"github.com/trestle-bridge/trestle/store"
)

const (
	// longBacklog is how many events must wait for lanes to be kept abreast: fewer are in memory anyway.
	longBacklog = 4096
	// turnRows is how many rows of the inbox the events of a turn may be spread over then.
	turnRows = 8
	// abreastRows is how far a lane may be ahead of the others, in rows.
	abreastRows = 16
	// abreastTurns is for how many turns at least the row of a lane counts.
	abreastTurns = 128
)

// abreast keeps the lanes of a long backlog together, so that a row which is read from the store is read for all of them,
// and neither again for each nor kept until the last comes by. A lane that is too far ahead of those that had the last
// turns gives its turn away. That holds nobody up for long: who takes no turns, because its handler is slow, is soon
// no measure any more.
type abreast struct {
	mu           sync.Mutex
	last, before int64 // the oldest rows of the present and of the past turns
	turns        int
}

func newAbreast() *abreast { return &abreast{last: math.MaxInt64, before: math.MaxInt64} }

// ahead says whether a lane with this head must give its turn away.
func (a *abreast) ahead(head store.Ref) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.turns++; a.turns > abreastTurns {
		a.before, a.last, a.turns = a.last, math.MaxInt64, 1
	}
	a.last = min(a.last, head.Seq)
	return head.Seq-abreastRows > min(a.last, a.before)
}

// nearby gives those of a turn's events that lie close together in the inbox.
func nearby(refs []store.Ref) []store.Ref {
	n := 1
	for n < len(refs) && refs[n].Seq < refs[0].Seq+turnRows {
		n++
	}
	return refs[:n]
}
