package storetest

import (
	"errors"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// again is a PDU that comes out of the dead letters.
func again(lane, id string) store.Element {
	e := pdu(lane, id)
	e.Again = true
	return e
}

// buriedPDU takes $1 in and buries it.
func buriedPDU(t *testing.T, s *store.Store) {
	t.Helper()
	lanes := ingest(t, s, transaction(pdu("!a", "$1")))
	Commit(t, s, func(tx *store.Tx) error {
		err := tx.Bury(&store.DeadLetter{Kind: "pdu", Lane: "!a", Key: "$1", Attempts: 1, From: lanes[0].Refs[0].Seq})
		return errors.Join(err, tx.Finish("!a", lanes[0].Refs[0]))
	})
}

// waiting gives the keys of what waits in the inbox.
func waiting(t *testing.T, s *store.Store) (keys []string) {
	t.Helper()
	err := s.Backlog(ctx(), func(l store.LaneRefs) error {
		for _, ref := range l.Refs {
			e, err := s.Element(ctx(), ref)
			if err != nil {
				return err
			}
			keys = append(keys, l.Lane+" "+e.Key)
		}
		if l.Attempts != 0 || l.Doubt {
			t.Errorf("%s begins with %d attempts, in doubt: %v", l.Lane, l.Attempts, l.Doubt)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func letters(t *testing.T, s *store.Store) []int64 {
	t.Helper()
	list, err := s.DeadLetters(ctx(), store.LetterQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return letterIDs(list)
}

var replayChecks = []check{
	{"Replay_KnownEvent_WaitsAgainAndItsLetterIsGone", func(t *testing.T, db *database) {
		s := db.open(t)
		buriedPDU(t, s)
		Commit(t, s, func(tx *store.Tx) error {
			lanes, err := tx.Replay(1, transaction(again("!a", "$1"), pdu("!b", "$2")))
			if len(lanes) != 2 || lanes[0].Lane != "!a" || len(lanes[0].Refs) != 1 {
				t.Errorf("lanes are %+v", lanes)
			}
			return err
		})
		for range 2 {
			expect(t, "waiting", waiting(t, s), []string{"!a $1", "!b $2"})
			expect(t, "letters", letters(t, s), []int64(nil))
			// The homeserver's own repetition is still one.
			expect(t, "taken in again", len(ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2")))), 0)
			shut(t, s)
			s = db.open(t)
		}
		_, err := s.DeadLetter(ctx(), 1)
		expectError(t, "DeadLetter", err, store.ErrNotFound)
		expectError(t, "Replay of what is gone", fails(s, func(tx *store.Tx) error {
			_, err := tx.Replay(1, transaction(again("!a", "$1")))
			return err
		}), store.ErrNotFound)
		expect(t, "waiting", waiting(t, s), []string{"!a $1", "!b $2"})
	}},
	{"Replay_EventsThatAreNotAgain_AreTakenOnce", func(t *testing.T, db *database) {
		s := db.open(t)
		ingest(t, s, transaction(pdu("!a", "$1")))
		bury(t, s, &store.DeadLetter{Kind: "body"}, &store.DeadLetter{Kind: "body"})
		Commit(t, s, func(tx *store.Tx) error {
			lanes, err := tx.Replay(1, transaction(pdu("!a", "$1"), pdu("!a", "$2")))
			expect(t, "lanes", len(lanes), 1)
			return err
		})
		Commit(t, s, func(tx *store.Tx) error {
			lanes, err := tx.Replay(2, transaction(pdu("!a", "$1"), pdu("!a", "$2")))
			expect(t, "lanes", len(lanes), 0)
			return err
		})
		expect(t, "waiting", waiting(t, s), []string{"!a $1", "!a $2"})
		expect(t, "letters", letters(t, s), []int64(nil))
	}},
	{"Replay_JobFails_LetterStaysAndNothingWaits", func(t *testing.T, db *database) {
		s := db.open(t)
		buriedPDU(t, s)
		bury(t, s, &store.DeadLetter{Kind: "outbox", Op: "message"})
		v := db.visit(t)
		request(t, v, store.ActionReplay, 1, 2)
		no := errors.New("no")
		expectError(t, "Commit", fails(s, func(tx *store.Tx) error {
			if _, err := tx.Replay(1, transaction(again("!a", "$1"), pdu("!a", "$new"))); err != nil {
				return err
			}
			if _, err := tx.ReplayOutgoing(2); err != nil {
				return err
			}
			return no
		}), no)
		expect(t, "letters", letters(t, s), []int64{1, 2})
		expect(t, "waiting", waiting(t, s), []string(nil))
		expect(t, "open requests", openRequests(t, s), "replay 1; replay 2; ")
		if err := s.OutgoingBacklog(ctx(), func(string, int64) error { return no }); err != nil {
			t.Errorf("the outbox holds something: %v", err)
		}
		// What the job would have made known is not; what was known is.
		expect(t, "taken in", len(ingest(t, s, transaction(pdu("!a", "$1"), pdu("!a", "$new")))), 1)
		expect(t, "waiting", waiting(t, s), []string{"!a $new"})
	}},
	{"Replay_PartsThatAreStillBad_AreBuriedAlthoughTheyWereBefore", func(t *testing.T, db *database) {
		s := db.open(t)
		bad := store.DeadLetter{Kind: "pdu", Body: []byte("5"), Cause: "not an event"}
		tr := transaction()
		tr.Dead = []store.DeadLetter{bad}
		ingest(t, s, tr)
		bury(t, s, &store.DeadLetter{Kind: "body"})
		v := db.visit(t)
		request(t, v, store.ActionReplay, 2)
		tr = transaction(pdu("!a", "$1"))
		tr.Dead = []store.DeadLetter{bad, {Kind: "pdu", Body: []byte("6"), Cause: "another"}}
		Commit(t, s, func(tx *store.Tx) error {
			_, err := tx.Replay(2, tr)
			return err
		})
		expect(t, "letters", letters(t, s), []int64{1, 3, 4})
		expect(t, "waiting", waiting(t, s), []string{"!a $1"})
		expect(t, "cause", answer(t, v, 2).Cause, "parts of it cannot be taken in, and are dead letters of their own: 3, 4")
	}},
	{"ReplayOutgoing_IsTheSameRequestWithNoAttempts", func(t *testing.T, db *database) {
		s := db.open(t)
		row := store.Outgoing{Lane: "!a", Key: "remote", Op: "message", TxnID: "txn", Payload: []byte{0, 1}}
		Commit(t, s, func(tx *store.Tx) error {
			_, err := tx.Enqueue(&row)
			return errors.Join(err, tx.OutgoingAttempt(row.ID, "503", start), tx.OutgoingDone(row.ID),
				tx.Bury(&store.DeadLetter{Kind: "outbox", Lane: row.Lane, Key: row.TxnID, Op: row.Op, Attempts: 2, From: row.ID, Body: row.Payload}),
				tx.Bury(&store.DeadLetter{Kind: "pdu"}))
		})
		v := db.visit(t)
		request(t, v, store.ActionReplay, 1)
		var back *store.Outgoing
		Commit(t, s, func(tx *store.Tx) (err error) {
			back, err = tx.ReplayOutgoing(1)
			return err
		})
		got, err := s.Outgoing(ctx(), back.ID)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "row", *got, store.Outgoing{ID: back.ID, Lane: "!a", Op: "message", TxnID: "txn", Payload: []byte{0, 1}, Created: start, Cause: "taken up again"})
		if back.ID <= row.ID {
			t.Errorf("row %d came back as %d", row.ID, back.ID)
		}
		expect(t, "letters", letters(t, s), []int64{2})
		expect(t, "went to", answer(t, v, 1).Went, back.ID)
		for _, id := range []int64{1, 2} {
			expectError(t, "ReplayOutgoing", fails(s, func(tx *store.Tx) error {
				_, err := tx.ReplayOutgoing(id)
				return err
			}), store.ErrNotFound)
		}
		expect(t, "letters", letters(t, s), []int64{2})
	}},
	{"Fate_FollowsTheInbox", func(t *testing.T, db *database) {
		s := db.open(t)
		buriedPDU(t, s)
		v := db.visit(t)
		request(t, v, store.ActionReplay, 1)
		var lanes []store.LaneRefs
		Commit(t, s, func(tx *store.Tx) (err error) {
			lanes, err = tx.Replay(1, transaction(again("!a", "$1")))
			return err
		})
		r, ref := answer(t, v, 1), lanes[0].Refs[0]
		expect(t, "went to", r.Went, ref.Seq)
		fate := func() store.Fate {
			t.Helper()
			f, err := v.Fate(ctx(), "pdu", r)
			if err != nil {
				t.Fatal(err)
			}
			return *f
		}
		expect(t, "at first", fate(), store.Fate{Waits: true})
		Commit(t, s, func(tx *store.Tx) error { return tx.Attempt("!a", ref, "busy", start) })
		expect(t, "after an attempt", fate(), store.Fate{Waits: true, Attempts: 1, Cause: "busy"})
		again := store.DeadLetter{Kind: "pdu", Lane: "!a", Key: "$1", Cause: "gone", From: ref.Seq}
		// One of the outbox that has the same number by chance.
		bury(t, s, &store.DeadLetter{Kind: "outbox", From: ref.Seq})
		Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.Bury(&again), tx.Finish("!a", ref)) })
		expect(t, "dead again", fate(), store.Fate{Dead: []store.DeadLetter{again}})
		Commit(t, s, func(tx *store.Tx) error { return tx.DropDeadLetter(again.ID) })
		expect(t, "done", fate(), store.Fate{})
	}},
	{"Fate_FollowsTheOutbox", func(t *testing.T, db *database) {
		s := db.open(t)
		bury(t, s, &store.DeadLetter{Kind: "outbox", Op: "message"})
		v := db.visit(t)
		request(t, v, store.ActionReplay, 1)
		Commit(t, s, func(tx *store.Tx) error {
			o, err := tx.ReplayOutgoing(1)
			if err != nil {
				return err
			}
			return tx.OutgoingAttempt(o.ID, "503", start)
		})
		r := answer(t, v, 1)
		f, err := v.Fate(ctx(), "outbox", r)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "after an attempt", *f, store.Fate{Waits: true, Attempts: 1, Cause: "503"})
		again := store.DeadLetter{Kind: "outbox", From: r.Went}
		Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.Bury(&again), tx.OutgoingDone(r.Went)) })
		if f, err = v.Fate(ctx(), "outbox", r); err != nil || f.Waits || len(f.Dead) != 1 {
			t.Errorf("dead again: %+v, %v", f, err)
		}
	}},
}
