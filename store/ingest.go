package store

import (
	"crypto/sha256"
	"slices"
)

// Ingest takes in a transaction: it drops the elements whose keys are known, writes the others as one row of the inbox
// and gives them by lane, in the order of each lane's first element. It gives nothing, and writes no row, when nothing is
// new; of inert elements only the keys are written. Dead parts are buried, those of an earlier delivery of the same transaction once: those that are new get their ID.
// EncryptedRooms are marked as [Tx.SetEncrypted] does, ChangedUsers as [Tx.OutdateDevices] does.
//
// The element's bytes are copied.
func (tx *Tx) Ingest(t *Transaction) ([]LaneRefs, error) {
	for _, room := range t.EncryptedRooms {
		if err := tx.SetEncrypted(room, true); err != nil {
			return nil, err
		}
	}
	if err := tx.OutdateDevices(t.ChangedUsers...); err != nil {
		return nil, err
	}
	w := tx.w
	hashes := make([]byte, 0, hashSize*(len(t.Elements)+len(t.Dead)))
	tx.undo(func() { w.seen.forget(hashes) })
	claim := func(h keyHash) bool {
		if !w.seen.claim(h) {
			return false
		}
		hashes = append(hashes, h[:]...)
		return true
	}
	for {
		index, body, atOnce := gather(t.Elements, claim, w.seen.has)
		var dead []*DeadLetter
		for i := range t.Dead {
			t.Dead[i].ID = 0 // of an earlier try
			if claim(hashKey(0, deadKey(&t.Dead[i]))) {
				dead = append(dead, &t.Dead[i])
			}
		}
		if len(hashes) == 0 && len(index.elements) == 0 {
			return nil, nil
		}
		refs, free, err := tx.insertRow(t, index, body, hashes)
		if err != nil {
			return nil, err
		}
		if free {
			for _, write := range atOnce {
				if err := write(tx); err != nil {
					return nil, err
				}
			}
			return refs, tx.buryAll(t, dead)
		}
		// Others took in meanwhile, perhaps the same.
		w.seen.forget(hashes)
		hashes = hashes[:0]
		if err = tx.catchUp(); err != nil {
			return nil, doing(err, "reading what others took in")
		}
	}
}

func (tx *Tx) buryAll(t *Transaction, dead []*DeadLetter) error {
	for _, letter := range dead {
		d := *letter
		if d.Created.IsZero() {
			d.Created = t.Received
		}
		if err := tx.Bury(&d); err != nil {
			return err
		}
		letter.ID = d.ID
	}
	return nil
}

// gather puts together what is new, and what is to be written about it at once.
func gather(elements []Element, claim, known func(keyHash) bool) (index *rowIndex, body []byte, atOnce []func(tx *Tx) error) {
	size := 0
	for i := range elements {
		size += len(elements[i].Raw)
	}
	index = &rowIndex{elements: make([]elementIndex, 0, len(elements))}
	body = make([]byte, 0, size)
	lanes := make(map[string]uint32, min(len(elements), 128))
	for i := range elements {
		e := &elements[i]
		if e.Inert || slices.ContainsFunc(e.InertAfter, func(key string) bool { return known(hashKey(byte(e.Kind), key)) }) {
			claim(hashKey(byte(e.Kind), e.Key))
			continue
		}
		if e.Key != "" && !claim(hashKey(byte(e.Kind), e.Key)) && !e.Again {
			continue
		}
		lane, ok := lanes[e.Lane]
		if !ok {
			lane = uint32(len(index.lanes))
			lanes[e.Lane] = lane
			index.lanes = append(index.lanes, e.Lane)
		}
		index.add(e, lane)
		body = append(body, e.Raw...)
		if e.AtOnce != nil {
			atOnce = append(atOnce, e.AtOnce)
		}
	}
	return index, body, atOnce
}

// newRow is what the writer asks an engine to insert.
type newRow struct {
	seq, received       int64
	hashes, lanes, body []byte
	events              int // 0: there is only something to remember
}

func (tx *Tx) insertRow(t *Transaction, index *rowIndex, body, hashes []byte) (refs []LaneRefs, free bool, err error) {
	w := tx.w
	received := t.Received
	if received.IsZero() {
		received = w.store.opts.Now()
	}
	seq := w.lastSeq + 1
	row := &newRow{seq: seq, received: toMillis(received), hashes: hashes, events: len(index.elements)}
	row.body, index.packed = w.pack(body)
	row.lanes = index.encode()
	free, err = w.engine.insert(tx, row)
	if err != nil || !free {
		return nil, false, doing(err, "writing transaction %q", t.ID)
	}
	w.lastSeq = seq
	// On PostgreSQL another process takes the number when we do not.
	tx.undo(func() { w.lastSeq = seq - 1 })
	w.taken = append(w.taken, seenRow{seq: seq, received: row.received, hashes: hashes})
	if len(index.elements) == 0 {
		return nil, true, nil
	}
	// When there is no room the older rows keep theirs, because they are worked on first.
	if row := newInboxRow(seq, index); w.tracked+row.weight() <= w.maxTracked {
		w.track(row)
		tx.undo(func() { w.untrack(row) })
		tx.AfterCommit(func() {
			if _, live := w.rows[seq]; live {
				w.store.cache.put(&cachedRow{seq: seq, index: index, body: body})
			}
		})
	}
	return index.refs(seq), true, nil
}

// catchUp learns what other processes took in since the last commit of this one.
func (tx *Tx) catchUp() error {
	w := tx.w
	rows, err := w.engine.missed(tx, w.lastSeq)
	for _, row := range rows {
		// Committed by others: it stays even if this job fails.
		w.seen.learn(row)
		w.lastSeq = max(w.lastSeq, row.seq)
	}
	return err
}

// deadKey identifies a dead part of a transaction: the homeserver sends the transaction again when our answer was lost.
func deadKey(d *DeadLetter) string {
	sum := sha256.Sum256(d.Body)
	return d.Kind + "\x00" + d.Lane + "\x00" + d.Key + "\x00" + string(sum[:])
}
