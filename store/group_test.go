package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// group puts jobs into one group, in this order, and ends it with a commit that somebody waits for. It gives how each job
// ended, and what order they ran in, each as often as it ran.
func group(t *testing.T, s *store.Store, jobs ...func(tx *store.Tx) error) (outcome []error, order []int) {
	t.Helper()
	store.HoldGroups(t, s)
	answers := make([]chan error, len(jobs))
	for i, job := range jobs {
		ran := make(chan struct{}, 10)
		answers[i] = make(chan error, 1)
		go func() {
			answers[i] <- s.CommitSoon(context.Background(), s.Epoch(), func(tx *store.Tx) error {
				order = append(order, i) // on the writer's goroutine
				ran <- struct{}{}
				return job(tx)
			})
		}()
		<-ran
	}
	if err := s.Commit(context.Background(), s.Epoch(), func(*store.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	for _, answer := range answers {
		outcome = append(outcome, <-answer)
	}
	return outcome, order
}

func engines(t *testing.T, test func(t *testing.T, s *store.Store)) {
	for what, uri := range map[string]func(testing.TB) string{"SQLite": storetest.SQLite, "PostgreSQL": storetest.Postgres} {
		t.Run(what, func(t *testing.T) { test(t, storetest.Open(t, uri(t), store.Options{})) })
	}
}

func settings(t *testing.T, s *store.Store, keys ...string) (there []string) {
	t.Helper()
	for _, key := range keys {
		switch _, err := s.Setting(context.Background(), key); {
		case err == nil:
			there = append(there, key)
		case !errors.Is(err, store.ErrNotFound):
			t.Error(err)
		}
	}
	return there
}

var errTest = errors.New("for the test")

func TestGroup_AJobFails_TheOthersHoldOnce(t *testing.T) {
	engines(t, func(t *testing.T, s *store.Store) {
		hooks := 0
		hooked := func(key string) func(tx *store.Tx) error {
			return func(tx *store.Tx) error {
				tx.AfterCommit(func() { hooks++ })
				_, err := tx.Enqueue(&store.Outgoing{Lane: key, Op: "x"})
				return errors.Join(err, put(key)(tx))
			}
		}
		outcome, order := group(t, s, hooked("a"), hooked("b"),
			func(tx *store.Tx) error { return errors.Join(hooked("c")(tx), errTest) }, hooked("d"))
		if fmt.Sprint(outcome) != fmt.Sprint([]error{nil, nil, errTest, nil}) {
			t.Errorf("the jobs ended with %v", outcome)
		}
		if !slices.Equal(order, []int{0, 1, 2, 0, 1, 3}) {
			t.Errorf("the jobs ran in the order %v", order)
		}
		if there := settings(t, s, "a", "b", "c", "d"); !slices.Equal(there, []string{"a", "b", "d"}) {
			t.Errorf("%v are there", there)
		}
		if lanes := outboxLanes(t, s); !slices.Equal(lanes, []string{"a", "b", "d"}) || hooks != 3 {
			t.Errorf("the outbox has %v, and %d hooks ran", lanes, hooks)
		}
	})
}

func outboxLanes(t *testing.T, s *store.Store) (lanes []string) {
	t.Helper()
	err := s.OutgoingBacklog(context.Background(), func(lane string, _ int64) error {
		lanes = append(lanes, lane)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return lanes
}

func TestGroup_AJobFailsWithoutWriting_NobodyRunsAgain(t *testing.T) {
	engines(t, func(t *testing.T, s *store.Store) {
		outcome, order := group(t, s, put("a"), func(*store.Tx) error { return errTest }, put("b"))
		if fmt.Sprint(outcome) != fmt.Sprint([]error{nil, errTest, nil}) || !slices.Equal(order, []int{0, 1, 2}) {
			t.Errorf("the jobs ended with %v and ran in the order %v", outcome, order)
		}
		if there := settings(t, s, "a", "b"); len(there) != 2 {
			t.Errorf("%v are there", there)
		}
	})
}

func TestGroup_WhatFailsWhenItRunsAgain_IsLeftOutToo(t *testing.T) {
	engines(t, func(t *testing.T, s *store.Store) {
		runs := 0
		fickle := func(tx *store.Tx) error {
			if runs++; runs > 1 {
				return errors.Join(put("b")(tx), errTest)
			}
			return put("b")(tx)
		}
		outcome, order := group(t, s, put("a"), fickle, put("c"), func(tx *store.Tx) error { return errors.Join(put("d")(tx), errTest) })
		for i, failed := range []bool{false, true, false, true} {
			if errors.Is(outcome[i], errTest) != failed {
				t.Errorf("job %d ended with %v", i, outcome[i])
			}
		}
		if !slices.Equal(order, []int{0, 1, 2, 3, 0, 1, 0, 2}) {
			t.Errorf("the jobs ran in the order %v", order)
		}
		if there := settings(t, s, "a", "b", "c", "d"); !slices.Equal(there, []string{"a", "c"}) {
			t.Errorf("%v are there", there)
		}
	})
}

// What a job took in is forgotten with its group and known again when it has run again: nothing is lost, nothing doubled.
func TestGroup_TakenInBeforeAJobFailed_IsTakenInOnce(t *testing.T) {
	engines(t, func(t *testing.T, s *store.Store) {
		ingest := func(lanes *int) func(tx *store.Tx) error {
			return func(tx *store.Tx) error {
				refs, err := tx.Ingest(&store.Transaction{Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: "$1", Raw: []byte("x")}}})
				*lanes = len(refs)
				return err
			}
		}
		var first, second, third int
		outcome, _ := group(t, s, ingest(&first), func(tx *store.Tx) error { return errors.Join(put("b")(tx), errTest) }, ingest(&second))
		storetest.Commit(t, s, ingest(&third))
		if outcome[0] != nil || first != 1 || second != 0 || third != 0 {
			t.Errorf("taken: %d, %d, %d; %v", first, second, third, outcome)
		}
		if st, err := s.InboxStats(context.Background()); err != nil || st.Rows != 1 {
			t.Errorf("%d rows, %v", st.Rows, err)
		}
	})
}

// The connection is lost under a group: whoever was on it is told, or runs again on the next one.
func TestGroup_ConnectionLost_TheOthersRunAgain(t *testing.T) {
	s := storetest.Open(t, storetest.Postgres(t), store.Options{})
	outcome, _ := group(t, s, put("a"), func(tx *store.Tx) error { return errors.Join(put("b")(tx), tx.EndConnection(), put("b")(tx)) }, put("c"))
	if outcome[0] != nil || outcome[1] == nil || outcome[2] != nil {
		t.Errorf("the jobs ended with %v", outcome)
	}
	if there := settings(t, s, "a", "b", "c"); !slices.Equal(there, []string{"a", "c"}) {
		t.Errorf("%v are there", there)
	}
}

func TestGroup_RowsOfTheOutbox_AreWrittenTogetherInOrder(t *testing.T) {
	engines(t, func(t *testing.T, s *store.Store) {
		ids := make([]int64, 200) // more than are numbered at once
		var jobs []func(tx *store.Tx) error
		for part := range 4 {
			jobs = append(jobs, func(tx *store.Tx) error {
				for i := part * 50; i < part*50+50; i++ {
					o := &store.Outgoing{Lane: fmt.Sprint(i), Op: "ü\"{},\\", TxnID: "\x00", Payload: []byte{0, byte(i)}, Attempts: i, Doubt: i%2 == 0}
					if _, err := tx.Enqueue(o); err != nil {
						return err
					}
					ids[i] = o.ID
				}
				if part == 3 { // of rows that were enqueued in the same commit
					return errors.Join(tx.OutgoingDone(ids[0]), tx.OutgoingDone(ids[10]), tx.OutgoingDoubt(ids[199]))
				}
				return nil
			})
		}
		if outcome, _ := group(t, s, jobs...); errors.Join(outcome...) != nil {
			t.Fatal(outcome)
		}
		if lanes := outboxLanes(t, s); len(lanes) != 198 || lanes[0] != "1" || lanes[9] != "11" || lanes[197] != "199" {
			t.Errorf("the outbox has %v", lanes)
		}
		for i, id := range ids {
			if i > 0 && id <= ids[i-1] {
				t.Errorf("row %d has the ID %d, and the one before %d", i, id, ids[i-1])
			}
		}
		o, err := s.Outgoing(context.Background(), ids[77])
		if err != nil || o.Lane != "77" || o.Op != "ü\"{},\\" || o.TxnID != "\x00" || string(o.Payload) != "\x00\x4d" || o.Attempts != 77 || o.Doubt {
			t.Errorf("%+v, %v", o, err)
		}
		if o, err = s.Outgoing(context.Background(), ids[199]); err != nil || !o.Doubt {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

func TestGroup_ARowThatCannotBeWritten_HarmsItsOwnJobOnly(t *testing.T) {
	for what, c := range map[string]struct {
		uri     func(testing.TB) string
		trigger string
	}{
		"SQLite":     {storetest.SQLite, "CREATE TRIGGER refuse BEFORE INSERT ON outbox WHEN NEW.lane = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END"},
		"PostgreSQL": {storetest.Postgres, "ALTER TABLE outbox ADD CHECK (lane <> 'bad')"},
	} {
		t.Run(what, func(t *testing.T) {
			s := storetest.Open(t, c.uri(t), store.Options{})
			store.Pragma(t, s, c.trigger)
			enqueue := func(lane string) func(tx *store.Tx) error {
				return func(tx *store.Tx) error {
					_, err := tx.Enqueue(&store.Outgoing{Lane: lane})
					return err
				}
			}
			for range 2 {
				outcome, _ := group(t, s, enqueue("a"), enqueue("bad"), enqueue("c"))
				if outcome[0] != nil || outcome[1] == nil || outcome[2] != nil {
					t.Errorf("the jobs ended with %v", outcome)
				}
			}
			if lanes := outboxLanes(t, s); !slices.Equal(lanes, []string{"a", "c", "a", "c"}) {
				t.Errorf("the outbox has %v", lanes)
			}
		})
	}
}
