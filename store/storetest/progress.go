package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

var progressChecks = []check{
	{"Finish_AllLanes_RemovesTheRow", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2"), pdu("!a", "$3")))
		a, b := lanes[0].Refs, lanes[1].Refs
		for i, ref := range []struct {
			lane string
			ref  store.Ref
			rows int64
		}{{"!a", a[0], 1}, {"!b", b[0], 1}, {"!a", a[1], 0}} {
			Commit(t, s, func(tx *store.Tx) error { return tx.Finish(ref.lane, ref.ref) })
			expect(t, fmt.Sprint("rows after finish ", i), rows(t, s).Rows, ref.rows)
		}
		expect(t, "backlog", len(backlog(t, s)), 0)
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", a[1]) }) // again: nothing
	}},
	{"Finish_LastOfALane_FinishesThoseBefore", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!a", "$2"), pdu("!a", "$3")))
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[1]) })
		expect(t, "backlog", keys(t, s, backlog(t, s)), "!a: $3")
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[0]) }) // does not go back
		expect(t, "backlog", keys(t, s, backlog(t, s)), "!a: $3")
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[2]) })
		expect(t, "rows", rows(t, s).Rows, int64(0))
	}},
	{"Finish_InTheCommitThatTookItIn_LeavesNothing", func(t *testing.T, db *database) {
		s := db.open(t)
		Commit(t, s, func(tx *store.Tx) error {
			lanes, err := tx.Ingest(transaction(pdu("!a", "$1")))
			if err != nil {
				return err
			}
			return tx.Finish("!a", lanes[0].Refs[0])
		})
		expect(t, "rows", rows(t, s).Rows, int64(0))
	}},
	{"Finish_RolledBack_IsUndone", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2")))
		_ = s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
			if err := errors.Join(tx.Finish("!a", lanes[0].Refs[0]), tx.Finish("!b", lanes[1].Refs[0])); err != nil {
				t.Error(err)
			}
			return errors.New("no")
		})
		expect(t, "backlog", keys(t, s, backlog(t, s)), "!a: $1; !b: $2")
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!b", lanes[1].Refs[0]) })
		expect(t, "backlog", keys(t, s, backlog(t, s)), "!a: $1")
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[0]) })
		expect(t, "rows", rows(t, s).Rows, int64(0))
	}},
	{"Finish_OfWhatIsNotThere_IsAnError", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2")))
		for what, job := range map[string]func(tx *store.Tx) error{
			"another lane":  func(tx *store.Tx) error { return tx.Finish("!x", lanes[0].Refs[0]) },
			"past the lane": func(tx *store.Tx) error { return tx.Finish("!a", lanes[1].Refs[0]) },
		} {
			if err := s.Commit(ctx(), s.Epoch(), job); err == nil {
				t.Errorf("%s: no error", what)
			}
		}
	}},
	{"Finish_AfterTrouble_LeavesNoneToTheNext", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2"), pdu("!a", "$3"), pdu("!b", "$4")))
		a, b := lanes[0].Refs, lanes[1].Refs
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.Attempt("!a", a[0], "no", start), tx.Doubt("!a", a[0]), tx.Attempt("!b", b[0], "no", start))
		})
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", a[0]) })
		shut(t, s)
		s = db.open(t)
		got := backlog(t, s)
		expect(t, "backlog", keys(t, s, got), "!a: $3; !b: $2 $4")
		for i, want := range []store.LaneRefs{{}, {Attempts: 1, Cause: "no", NextAt: start}} {
			got[i].Lane, got[i].Refs = "", nil
			expect(t, fmt.Sprint("state of entry ", i), got[i], want)
		}
		Commit(t, s, func(tx *store.Tx) error { // from what is stored
			return errors.Join(tx.Finish("!b", b[0]), tx.Doubt("!b", b[1]), tx.Attempt("!a", a[1], "again", start))
		})
		shut(t, s)
		s = db.open(t)
		got = backlog(t, s)
		expect(t, "backlog", keys(t, s, got), "!a: $3; !b: $4")
		for i, want := range []store.LaneRefs{{Attempts: 1, Cause: "again", NextAt: start}, {Doubt: true}} {
			got[i].Lane, got[i].Refs = "", nil
			expect(t, fmt.Sprint("state of entry ", i), got[i], want)
		}
		Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.Finish("!a", a[1]), tx.Finish("!b", b[1])) })
		expect(t, "rows", rows(t, s).Rows, int64(0))
	}},
	{"Postpone_CountsNothingAndClearsTheDoubtUnlessItStays", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2")))
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(
				tx.Doubt("!a", lanes[0].Refs[0]), tx.Postpone("!a", lanes[0].Refs[0], "later", false),
				tx.Doubt("!b", lanes[1].Refs[0]), tx.Postpone("!b", lanes[1].Refs[0], "later\x00", true),
			)
		})
		shut(t, s)
		got := backlog(t, db.open(t))
		for i, want := range []store.LaneRefs{{Cause: "later"}, {Doubt: true, Cause: "later\x00"}} {
			got[i].Lane, got[i].Refs = "", nil
			expect(t, fmt.Sprint("state of entry ", i), got[i], want)
		}
	}},
	{"Backlog_AfterRestart_GivesExactlyWhatIsUnfinished", func(t *testing.T, db *database) {
		s := db.open(t)
		one := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2"), pdu("!a", "$3"), pdu("!c", "$4")))
		two := ingest(t, s, transaction(pdu("!a", "$5"), pdu("!d", "$6")))
		three := ingest(t, s, transaction(pdu("!a", "$7")))
		next := start.Add(time.Minute)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(
				tx.Finish("!a", one[0].Refs[0]),
				tx.Doubt("!a", one[0].Refs[1]),
				tx.Finish("!b", one[1].Refs[0]),
				tx.Doubt("!c", one[2].Refs[0]),
				tx.Attempt("!c", one[2].Refs[0], "no answer", next),
				tx.Attempt("!c", one[2].Refs[0], "no answer", next.Add(time.Second)),
				tx.Attempt("!d", two[1].Refs[0], "no", next),
				tx.Finish("!a", three[0].Refs[0]),
			)
		})
		shut(t, s)
		s = db.open(t)
		got := backlog(t, s)
		expect(t, "backlog", keys(t, s, got), "!a: $3; !c: $4; !a: $5; !d: $6")
		for i, want := range []store.LaneRefs{
			{Doubt: true}, {Attempts: 2, Cause: "no answer", NextAt: next.Add(time.Second)}, {}, {Attempts: 1, Cause: "no", NextAt: next},
		} {
			got[i].Lane, got[i].Refs = "", nil
			expect(t, fmt.Sprint("state of entry ", i), got[i], want)
		}
		// And it can be finished by this process.
		for _, l := range backlog(t, s) {
			Commit(t, s, func(tx *store.Tx) error { return tx.Finish(l.Lane, l.Refs[len(l.Refs)-1]) })
		}
		expect(t, "rows", rows(t, s).Rows, int64(0))
	}},
	{"Finish_ClearsAttemptsAndDoubtForTheNext", func(t *testing.T, db *database) {
		s := db.open(t)
		refs := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!a", "$2")))[0].Refs
		Commit(t, s, func(tx *store.Tx) error { return tx.Attempt("!a", refs[0], "x", start) })
		Commit(t, s, func(tx *store.Tx) error { return tx.Doubt("!a", refs[0]) })
		got := backlog(t, s)[0]
		if !got.Doubt || got.Attempts != 1 {
			t.Errorf("in doubt after an attempt: %+v", got)
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", refs[0]) })
		got = backlog(t, s)[0]
		if got.Doubt || got.Attempts != 0 || !got.NextAt.IsZero() || len(got.Refs) != 1 {
			t.Errorf("the second event inherits from the first: %+v", got)
		}
		err := s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error { return tx.Doubt("!a", refs[0]) })
		expectError(t, "Doubt of a finished event", err, store.ErrNotFound)
	}},
	{"Progress_WrittenByAnEarlierProcess_IsContinued", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2"), pdu("!a", "$3")))
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!b", lanes[1].Refs[0]) })
		shut(t, s)
		s = db.open(t)
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[0]) })
		expect(t, "backlog", keys(t, s, backlog(t, s)), "!a: $3")
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[1]) })
		expect(t, "rows", rows(t, s).Rows, int64(0))
	}},
	{"Backlog_OfManyRows_IsInOrder", func(t *testing.T, db *database) {
		s := db.open(t)
		const n = 450
		Commit(t, s, func(tx *store.Tx) error {
			for i := range n {
				if _, err := tx.Ingest(transaction(pdu("!a", fmt.Sprint("$", i)))); err != nil {
					return err
				}
			}
			return nil
		})
		got := backlog(t, s)
		expect(t, "number", len(got), n)
		for i := range got {
			e, err := s.Element(ctx(), got[i].Refs[0])
			if err != nil || e.Key != fmt.Sprint("$", i) {
				t.Fatalf("entry %d is %q, %v", i, e.Key, err)
			}
		}
	}},
}
