package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/trestle-bridge/trestle/store"
)

// The ledger is what the handler leaves behind: outbox rows, written in the same commits as the progress of the events,
// just as a bridge's handler leaves what is to be done on the homeserver. Nobody works on these rows. What they say
// stands in their lane, "ROOM ENTRIES", so that one walk over the outbox in the order of its IDs, which is the order of
// the commits, tells everything.

const ledgerOp = "count"

// An entry is one event that was handled.
type entry struct {
	hash [16]byte // of its ID: SHA-256, cut off
	n    int64    // its content.n
}

const entrySize = 16 + 8

func newEntry(eventID string, n int64) entry {
	sum := sha256.Sum256([]byte(eventID))
	return entry{hash: [16]byte(sum[:]), n: n}
}

// writeRow writes a row for events of one room, in the order in which they were handled.
func writeRow(tx *store.Tx, room string, entries []entry) error {
	b := make([]byte, 0, len(entries)*entrySize)
	for _, e := range entries {
		b = append(b, e.hash[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(e.n))
	}
	_, err := tx.Enqueue(&store.Outgoing{Lane: room + " " + base64.StdEncoding.EncodeToString(b), Op: ledgerOp})
	return err
}

func readRow(lane string) (room string, entries []entry, err error) {
	space := strings.LastIndexByte(lane, ' ') // a room ID may have spaces in it
	if space < 0 {
		return "", nil, fmt.Errorf("outbox lane %q was not written by this program", lane)
	}
	room, text := lane[:space], lane[space+1:]
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || len(b)%entrySize != 0 {
		return "", nil, fmt.Errorf("outbox lane %q was not written by this program", lane)
	}
	for ; len(b) > 0; b = b[entrySize:] {
		entries = append(entries, entry{hash: [16]byte(b), n: int64(binary.BigEndian.Uint64(b[16:]))})
	}
	return room, entries, nil
}

// counts is the answer of GET /count.
type counts struct {
	Events     int64 `json:"events"`
	Unique     int64 `json:"unique"`
	OutOfOrder int64 `json:"out_of_order"`
	Dead       int64 `json:"dead"`
}

// count reads the ledger and the dead letters.
func count(ctx context.Context, s *store.Store) (counts, error) {
	var c counts
	seen := map[[16]byte]struct{}{}
	last := map[string]int64{}
	err := s.OutgoingBacklog(ctx, func(lane string, _ int64) error {
		room, entries, err := readRow(lane)
		if err != nil {
			return err
		}
		for _, e := range entries {
			c.Events++
			seen[e.hash] = struct{}{}
			if before, ok := last[room]; ok && e.n <= before {
				c.OutOfOrder++
			}
			last[room] = e.n
		}
		return nil
	})
	if err != nil {
		return counts{}, fmt.Errorf("count the events: %w", err)
	}
	c.Unique = int64(len(seen))
	if c.Dead, err = s.DeadLetterCount(ctx); err != nil {
		return counts{}, fmt.Errorf("count the dead letters: %w", err)
	}
	return c, nil
}
