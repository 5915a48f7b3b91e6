//go:build failpoints

package simulation

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// choices are what a seed decides. What is asked about the same thing for the n-th time is always answered in the same way,
// whatever was asked in between.
type choices struct {
	seed uint64

	mu    sync.Mutex
	asked map[string]uint64
}

func newChoices(seed uint64) *choices { return &choices{seed: seed, asked: map[string]uint64{}} }

// about gives the randomness of the next choice about something.
func (c *choices) about(what string) *rand.Rand {
	c.mu.Lock()
	c.asked[what]++
	n := c.asked[what]
	c.mu.Unlock()
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, n))
	_, _ = h.Write([]byte(what))
	return rand.New(rand.NewPCG(c.seed, h.Sum64()))
}

// upTo is a time below a limit; short ones are more frequent.
func upTo(r *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(r.Float64() * r.Float64() * float64(limit))
}

// character is what kind of world a seed makes.
type character struct {
	rooms, onMatrix, onNetwork int
	atLeastOnce                bool
	marks                      bool // the session says itself when a message leaves
	requests                   int  // of a thousand requests to the homeserver, how many go wrong
	pushes                     int  // of a hundred things that alice does, before how many a transaction is to go wrong
	sends                      int  // of a hundred messages to the network, how many go wrong
	commits                    int  // of a thousand commits, how many fail
	crashes                    int
	restart                    bool // of the homeserver
}

func (c *choices) character() character {
	r := c.about("the world")
	one := func(of ...int) int { return of[r.IntN(len(of))] }
	return character{
		rooms: 1 + r.IntN(3), onMatrix: 4 + r.IntN(8), onNetwork: 4 + r.IntN(8), atLeastOnce: r.IntN(3) == 0, marks: r.IntN(2) == 0,
		requests: one(0, 20, 60, 200), pushes: one(0, 10, 40), sends: one(0, 5, 30), commits: one(0, 0, 10, 60),
		crashes: one(0, 1, 1, 2, 3), restart: r.IntN(3) == 0,
	}
}
