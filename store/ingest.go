package store

import (
	"crypto/sha256"
)

// Ingest takes in a transaction: it drops the elements whose keys are known, writes the others as one row of the inbox
// and gives them by lane, in the order of each lane's first element. It gives nothing, and writes no row, when nothing is
// new. Dead parts are buried, those of an earlier delivery of the same transaction once: those that are new get their ID.
// EncryptedRooms are marked as [Tx.SetEncrypted] does.
//
// The element's bytes are copied.
func (tx *Tx) Ingest(t *Transaction) ([]LaneRefs, error) {
	for _, room := range t.EncryptedRooms {
		if err := tx.SetEncrypted(room, true); err != nil {
			return nil, err
		}
	}
	w := tx.w
	if !w.toppedUp {
		if err := tx.topUp(); err != nil {
			return nil, doing(err, "reading what others took in")
		}
	}
	hashes := make([]byte, 0, hashSize*(len(t.Elements)+len(t.Dead)))
	tx.undo(func() { w.seen.forget(hashes) })
	claim := func(h keyHash) bool {
		if !w.seen.claim(h) {
			return false
		}
		hashes = append(hashes, h[:]...)
		return true
	}
	index, body := gather(t.Elements, claim)
	dead := 0
	for i := range t.Dead {
		t.Dead[i].ID = 0 // of an earlier try
		d := t.Dead[i]
		if !claim(hashKey(0, deadKey(&d))) {
			continue
		}
		if dead++; d.Created.IsZero() {
			d.Created = t.Received
		}
		if err := tx.Bury(&d); err != nil {
			return nil, err
		}
		t.Dead[i].ID = d.ID
	}
	if len(index.elements) == 0 && dead == 0 {
		return nil, nil
	}
	return tx.insertRow(t, index, body, hashes)
}

// gather puts together what is new.
func gather(elements []Element, claim func(keyHash) bool) (*rowIndex, []byte) {
	size := 0
	for i := range elements {
		size += len(elements[i].Raw)
	}
	index := &rowIndex{elements: make([]elementIndex, 0, len(elements))}
	body := make([]byte, 0, size)
	lanes := make(map[string]uint32, 16)
	for i := range elements {
		e := &elements[i]
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
	}
	return index, body
}

func (tx *Tx) insertRow(t *Transaction, index *rowIndex, body, hashes []byte) ([]LaneRefs, error) {
	w := tx.w
	received := t.Received
	if received.IsZero() {
		received = w.store.opts.Now()
	}
	seq := w.lastSeq + 1
	w.lastSeq = seq
	// On PostgreSQL another process takes the number when we do not.
	tx.undo(func() { w.lastSeq = seq - 1 })
	if _, err := tx.exec(`INSERT INTO seen (seq, received, hashes) VALUES ($1, $2, $3)`, seq, toMillis(received), hashes); err != nil {
		return nil, doing(err, "remembering the events of transaction %q", t.ID)
	}
	w.taken = append(w.taken, seenRow{seq: seq, hashes: hashes})
	if len(index.elements) == 0 {
		return nil, nil
	}
	_, err := tx.exec(`INSERT INTO inbox (seq, received, events, lanes, body) VALUES ($1, $2, $3, $4, $5)`,
		seq, toMillis(received), len(index.elements), index.encode(), body)
	if err != nil {
		return nil, doing(err, "writing transaction %q", t.ID)
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
	return index.refs(seq), nil
}

// topUp learns what other processes took in since the last commit of this one.
func (tx *Tx) topUp() error {
	if err := tx.ready(nil); err != nil {
		return err
	}
	w := tx.w
	rows, err := w.engine.topUp(w, w.lastSeq)
	if err != nil {
		tx.err = err
		return err
	}
	for _, row := range rows {
		// Committed by others: it stays even if this job fails.
		w.seen.learn(row)
		w.lastSeq = max(w.lastSeq, row.seq)
	}
	w.toppedUp = true
	return nil
}

// deadKey identifies a dead part of a transaction: the homeserver sends the transaction again when our answer was lost.
func deadKey(d *DeadLetter) string {
	sum := sha256.Sum256(d.Body)
	return d.Kind + "\x00" + d.Lane + "\x00" + d.Key + "\x00" + string(sum[:])
}
