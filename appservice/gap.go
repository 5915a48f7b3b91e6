package appservice

import (
	"strconv"
	"strings"
	"sync"

	"github.com/trestle-bridge/trestle/store"
)

// gaps finds what Synapse keeps back. A transaction that it stores while it ends a time of failures, or that its own restart cuts off, it sends only when
// another has failed (_TransactionController.send and _Recoverer in synapse/appservice/scheduler.py): on a bridge that does well, never. It counts
// transactions, so such a one leaves a gap. What comes after a gap is refused once, and then Synapse begins again with the oldest that it has, two seconds later.
//
// All appservices of a Synapse share the count. When what was refused comes again before what is missing, the gap is another's, and nothing is refused any
// more by this process.
type gaps struct {
	mu      sync.Mutex
	synapse bool
	upTo    int64          // the newest before which none is missing; 0: none has come
	above   map[int64]bool // what was taken beyond a gap
	refused map[int64]bool
	others  bool // who share the count
}

// from notes what the homeserver is.
func (g *gaps) from(software string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.synapse = strings.HasPrefix(software, "Synapse ")
}

func (g *gaps) ofSynapse() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.synapse
}

// widestGap is how many transactions may be missing. Other homeservers' numbers are times, and Synapse's begin anew in some ways of restoring it.
const widestGap = 32

// refuses says whether a transaction is not to be taken before what is missing.
func (g *gaps) refuses(t *store.Transaction) bool {
	n, ok := number(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !ok || !g.synapse || g.others || g.upTo == 0 || n <= g.upTo+1 || n > g.upTo+widestGap+1 || g.above[n] || !comesAgainWhole(t) {
		return false
	}
	if g.refused[n] {
		g.others = true
		return false
	}
	g.refused[n] = true
	return true
}

// took notes a transaction that is stored.
func (g *gaps) took(t *store.Transaction) {
	n, ok := number(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !ok || g.others:
	case g.upTo == 0 || n > g.upTo+widestGap+1 || n < g.upTo-widestGap: // the first, or the count began anew
		g.upTo, g.above, g.refused = n, map[int64]bool{}, map[int64]bool{}
	case n > g.upTo:
		g.above[n] = true
		for g.above[g.upTo+1] {
			g.upTo++
			delete(g.above, g.upTo)
			delete(g.refused, g.upTo)
		}
	}
}

func number(t *store.Transaction) (int64, bool) {
	n, err := strconv.ParseInt(t.ID, 10, 64)
	return n, err == nil && n > 0
}

// comesAgainWhole: Synapse sends a transaction that has failed again without all that are not events. Key counts come with the next.
func comesAgainWhole(t *store.Transaction) bool {
	if len(t.ChangedUsers) > 0 || len(t.Dead) > 0 {
		return false
	}
	for i := range t.Elements {
		if kind := t.Elements[i].Kind; kind != store.KindPDU && kind != store.KindKeyCounts {
			return false
		}
	}
	return len(t.Elements) > 0
}
