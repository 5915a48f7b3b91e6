package store

import (
	"crypto/sha256"
	"time"
)

// hashSize is how much of a key's SHA-256 is kept: 200,000 keys of 16 bytes collide with a probability below 1e-28.
const hashSize = 16

type keyHash [hashSize]byte

func hashKey(space byte, key string) keyHash {
	var buf [128]byte
	b := append(append(buf[:0], space), key...)
	sum := sha256.Sum256(b)
	return keyHash(sum[:hashSize])
}

// seenKeys is the memory of de-duplication keys: those of the newest transactions, at least limit of them as long as
// there are so many. Only the writer touches it.
type seenKeys struct {
	limit int
	known map[keyHash]struct{}
	rows  []seenRow // oldest first
	count int
	// pruneBelow: rows below this number have left the memory and may leave the database; due counts them.
	pruneBelow int64
	due        int
}

// seenRow is what one transaction brought: hashes is a multiple of hashSize long.
type seenRow struct {
	seq      int64
	received int64 // in milliseconds
	hashes   []byte
}

func newSeenKeys(limit int) *seenKeys {
	return &seenKeys{limit: limit, known: map[keyHash]struct{}{}}
}

// claim reports whether the key is new, and remembers it. A claim is undone by forget.
func (k *seenKeys) claim(h keyHash) bool {
	if _, ok := k.known[h]; ok {
		return false
	}
	k.known[h] = struct{}{}
	return true
}

func (k *seenKeys) has(h keyHash) bool {
	_, ok := k.known[h]
	return ok
}

func (k *seenKeys) forget(hashes []byte) {
	for ; len(hashes) >= hashSize; hashes = hashes[hashSize:] {
		delete(k.known, keyHash(hashes[:hashSize]))
	}
}

// learn makes a row that was committed before, or by others, part of the memory.
func (k *seenKeys) learn(row seenRow) {
	for h := row.hashes; len(h) >= hashSize; h = h[hashSize:] {
		k.known[keyHash(h[:hashSize])] = struct{}{}
	}
	k.push(row)
}

// push makes claims permanent, now that their row is committed, and lets the oldest rows go when there is no room.
func (k *seenKeys) push(row seenRow) {
	k.rows = append(k.rows, row)
	k.count += len(row.hashes) / hashSize
	for len(k.rows) > 1 && k.count-len(k.rows[0].hashes)/hashSize >= k.limit {
		k.forget(k.rows[0].hashes)
		k.count -= len(k.rows[0].hashes) / hashSize
		k.rows[0] = seenRow{}
		k.rows = k.rows[1:]
		k.pruneBelow = k.rows[0].seq
		k.due++
	}
}

// Sight is what is remembered of a key.
type Sight uint8

// The zero Sight is of a key that was never taken in, or so long ago that it is forgotten.
const (
	Seen       Sight = 1 // taken in since the time that was asked for, or not long before
	SeenBefore Sight = 2 // taken in before it
)

// sightSlack: a transaction may have waited for its commit longer than the next ones.
const sightSlack = time.Minute

// Sights tells of each key whether an element with it was taken in, and whether that was before a time. Of keys that this transaction claims it knows as well.
func (tx *Tx) Sights(kind Kind, keys []string, before time.Time) ([]Sight, error) {
	w := tx.w
	if err := tx.catchUp(); err != nil {
		return nil, doing(err, "reading what others took in")
	}
	sights, at := make([]Sight, len(keys)), make(map[keyHash]int, len(keys))
	for i, key := range keys {
		h := hashKey(byte(kind), key)
		at[h] = i
		if w.seen.has(h) {
			sights[i] = SeenBefore
		}
	}
	late := func(row *seenRow) {
		for h := row.hashes; len(h) >= hashSize; h = h[hashSize:] {
			if i, ok := at[keyHash(h[:hashSize])]; ok {
				sights[i] = Seen
			}
		}
	}
	for i := range w.taken {
		late(&w.taken[i])
	}
	for i := len(w.seen.rows) - 1; i >= 0; i-- {
		switch row := &w.seen.rows[i]; {
		case row.received < toMillis(before.Add(-sightSlack)):
			return sights, nil
		case row.received >= toMillis(before):
			late(row)
		}
	}
	return sights, nil
}

// LastTaken is when the newest transaction with something new came; zero when there has been none.
func (tx *Tx) LastTaken() time.Time {
	if n := len(tx.w.seen.rows); n > 0 {
		return fromMillis(tx.w.seen.rows[n-1].received)
	}
	return time.Time{}
}

// RememberedSince is since when all that was taken in is remembered: of what came before that, some or all is forgotten. Zero: nothing is.
func (tx *Tx) RememberedSince() time.Time {
	if k := tx.w.seen; k.count >= k.limit && len(k.rows) > 0 {
		return fromMillis(k.rows[0].received).Add(sightSlack)
	}
	return time.Time{}
}
