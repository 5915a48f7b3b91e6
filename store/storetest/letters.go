package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// visit opens the database beside s.
func (db *database) visit(t *testing.T) *store.Visitor {
	t.Helper()
	v, err := store.Visit(ctx(), db.uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("closing the visitor: %v", err)
		}
	})
	return v
}

func bury(t *testing.T, s *store.Store, letters ...*store.DeadLetter) {
	t.Helper()
	Commit(t, s, func(tx *store.Tx) error {
		for _, d := range letters {
			if err := tx.Bury(d); err != nil {
				return err
			}
		}
		return nil
	})
}

func request(t *testing.T, v *store.Visitor, action string, ids ...int64) (missing []int64) {
	t.Helper()
	missing, err := v.Request(ctx(), action, ids...)
	if err != nil {
		t.Fatal(err)
	}
	return missing
}

func openRequests(t *testing.T, s *store.Store) (out string) {
	t.Helper()
	list, err := s.OpenRequests(ctx(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		out += fmt.Sprint(r.Action, " ", r.Letter, "; ")
	}
	return out
}

func answer(t *testing.T, v *store.Visitor, id int64) *store.LetterRequest {
	t.Helper()
	r, err := v.Answer(ctx(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func letterIDs(letters []store.DeadLetter) (ids []int64) {
	for _, d := range letters {
		ids = append(ids, d.ID)
	}
	return ids
}

var letterChecks = []check{
	{"DeadLetters_AreListedReadAndDropped", func(t *testing.T, db *database) {
		s := db.open(t)
		for i := range 6 {
			d := &store.DeadLetter{Kind: "pdu", Lane: "!a", Key: fmt.Sprint("$", i), Cause: "no", Attempts: i, Body: []byte("{}"), From: 9, Doubt: i == 2}
			if i >= 3 {
				d.Kind, d.Lane, d.Op = "outbox", fmt.Sprint("!", i), "message"
			}
			bury(t, s, d)
		}
		v := db.visit(t)
		for _, c := range []struct {
			query store.LetterQuery
			want  []int64
		}{
			{store.LetterQuery{}, []int64{1, 2, 3, 4, 5, 6}},
			{store.LetterQuery{After: 2, Limit: 2}, []int64{3, 4}},
			{store.LetterQuery{Newest: true, Limit: 2}, []int64{6, 5}},
			{store.LetterQuery{Newest: true, Limit: 2, After: 5}, []int64{4, 3}},
			{store.LetterQuery{Newest: true, After: 1}, nil},
			{store.LetterQuery{Kind: "pdu"}, []int64{1, 2, 3}},
			{store.LetterQuery{Lanes: []string{"!a", "!5"}, After: 2}, []int64{3, 6}},
			{store.LetterQuery{Kind: "outbox", Lanes: []string{"!a", "!5"}}, []int64{6}},
			{store.LetterQuery{Kind: "nothing"}, nil},
		} {
			for who, list := range map[string]func(store.LetterQuery) ([]store.DeadLetter, error){
				"store":   func(q store.LetterQuery) ([]store.DeadLetter, error) { return s.DeadLetters(ctx(), q) },
				"visitor": func(q store.LetterQuery) ([]store.DeadLetter, error) { return v.DeadLetters(ctx(), q) },
			} {
				got, err := list(c.query)
				if err != nil {
					t.Fatal(err)
				}
				expect(t, fmt.Sprintf("%s: %+v", who, c.query), letterIDs(got), c.want)
			}
		}
		want := store.DeadLetter{ID: 3, Kind: "pdu", Lane: "!a", Key: "$2", Cause: "no", Attempts: 2, Doubt: true, From: 9, Size: 2, Body: []byte("{}"), Created: start}
		got, err := v.DeadLetter(ctx(), 3)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "a letter", *got, want)
		listed, err := s.DeadLetters(ctx(), store.LetterQuery{After: 2, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		want.Body = nil
		expect(t, "the letter in a list", listed, []store.DeadLetter{want})
		Commit(t, s, func(tx *store.Tx) error { return tx.DropDeadLetter(3) })
		_, err = s.DeadLetter(ctx(), 3)
		expectError(t, "DeadLetter", err, store.ErrNotFound)
		_, err = v.DeadLetter(ctx(), 3)
		expectError(t, "DeadLetter of a visitor", err, store.ErrNotFound)
		expectError(t, "DropDeadLetter", fails(s, func(tx *store.Tx) error { return tx.DropDeadLetter(3) }), store.ErrNotFound)
		for _, count := range []func() (int64, error){
			func() (int64, error) { return s.DeadLetterCount(ctx()) }, func() (int64, error) { return v.DeadLetterCount(ctx()) },
		} {
			if n, err := count(); err != nil || n != 5 {
				t.Errorf("%d dead letters, %v", n, err)
			}
		}
	}},
	{"Visit_BesideTheHolder_TakesNothingOver", func(t *testing.T, db *database) {
		s := db.open(t)
		bury(t, s, &store.DeadLetter{Kind: "pdu"})
		v := db.visit(t)
		expect(t, "missing", request(t, v, store.ActionReplay, 1, 7), []int64{7})
		Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("k", []byte("still here")) })
		expect(t, "open requests", openRequests(t, s), "replay 1; ")
		shut(t, s)
		if _, err := v.DeadLetter(ctx(), 1); err != nil {
			t.Errorf("reading without a holder: %v", err)
		}
		request(t, v, store.ActionDrop, 1)
		expect(t, "open requests after a restart", openRequests(t, db.open(t)), "drop 1; ")
	}},
	{"Request_IsAnsweredByWhatWasDone", func(t *testing.T, db *database) {
		s := db.open(t)
		for range 4 {
			bury(t, s, &store.DeadLetter{Kind: "pdu", Lane: "!a", Cause: "old"})
		}
		v := db.visit(t)
		_, err := v.Answer(ctx(), 1)
		expectError(t, "Answer without a request", err, store.ErrNotFound)
		request(t, v, store.ActionReplay, 1, 2, 3, 4)
		Commit(t, s, func(tx *store.Tx) error {
			_, err := tx.Replay(1, transaction(pdu("!a", "$1")))
			return errors.Join(err, tx.DropDeadLetter(2), tx.RefuseReplay(3, "new"))
		})
		Commit(t, s, func(tx *store.Tx) error { return tx.DropDeadLetter(4) })
		Commit(t, s, func(tx *store.Tx) error { return tx.AnswerMissing(4) }) // it was answered by the drop
		for _, want := range []store.LetterRequest{
			{Letter: 1, Result: store.ResultReplayed, Went: 1}, {Letter: 2, Result: store.ResultDropped},
			{Letter: 3, Result: store.ResultRefused, Cause: "new"}, {Letter: 4, Result: store.ResultDropped},
		} {
			got := answer(t, v, want.Letter)
			if got.Asked.IsZero() {
				t.Errorf("request %d was never asked", want.Letter)
			}
			want.Action, want.Asked, want.Answered = store.ActionReplay, got.Asked, start
			expect(t, "answer", *got, want)
		}
		expect(t, "open requests", openRequests(t, s), "")
		kept, err := s.DeadLetter(ctx(), 3)
		if err != nil || kept.Cause != "new" {
			t.Errorf("the refused letter is %+v, %v", kept, err)
		}
		// And asked again.
		expect(t, "missing", request(t, v, store.ActionReplay, 1, 3), []int64{1})
		expect(t, "open requests", openRequests(t, s), "replay 3; ")
		if got := answer(t, v, 3); got.Result != "" || got.Cause != "" || !got.Answered.IsZero() {
			t.Errorf("a new request is answered: %+v", got)
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.DropDeadLetter(3) })
		bury(t, s, &store.DeadLetter{Kind: "pdu"})
		request(t, v, store.ActionDrop, 5)
		Commit(t, s, func(tx *store.Tx) error { return tx.AnswerMissing(5) })
		expect(t, "result", answer(t, v, 5).Result, store.ResultMissing)
		expectError(t, "RefuseReplay", fails(s, func(tx *store.Tx) error { return tx.RefuseReplay(77, "x") }), store.ErrNotFound)
	}},
	{"Prune_ForgetsAnswersAndNoOpenRequest", func(t *testing.T, db *database) {
		s := db.open(t)
		bury(t, s, &store.DeadLetter{Kind: "pdu"}, &store.DeadLetter{Kind: "pdu"})
		v := db.visit(t)
		request(t, v, store.ActionDrop, 1, 2)
		Commit(t, s, func(tx *store.Tx) error { return tx.DropDeadLetter(1) })
		for _, c := range []struct {
			after time.Duration
			there bool
		}{{23 * time.Hour, true}, {25 * time.Hour, false}} {
			shut(t, s)
			db.now = start.Add(c.after)
			s = db.open(t)
			if err := s.Prune(ctx()); err != nil {
				t.Fatal(err)
			}
			_, err := v.Answer(ctx(), 1)
			expect(t, fmt.Sprint("the answer is there after ", c.after), err == nil, c.there)
			expect(t, "open requests", openRequests(t, s), "drop 2; ")
		}
	}},
}
