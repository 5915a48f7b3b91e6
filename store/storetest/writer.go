package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// together commits the jobs in their order, each queued while the one before it runs, so that as a rule they share a
// group. Nothing that is checked depends on whether they do.
func together(t *testing.T, s *store.Store, jobs ...func(tx *store.Tx) error) []error {
	t.Helper()
	errs := make([]error, len(jobs))
	gates := make([]chan struct{}, len(jobs)+1)
	for i := range gates {
		gates[i] = make(chan struct{})
	}
	var wait sync.WaitGroup
	for i, job := range jobs {
		started := sync.OnceFunc(func() {
			close(gates[i+1])
			time.Sleep(time.Millisecond) // the next one reaches the queue meanwhile
		})
		wait.Go(func() {
			<-gates[i]
			errs[i] = s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
				started()
				return job(tx)
			})
		})
	}
	close(gates[0])
	wait.Wait()
	return errs
}

var writerChecks = []check{
	{"Probe_LeavesTheStoreToItsHolder", func(t *testing.T, db *database) {
		s := db.open(t)
		if err := store.Probe(ctx(), db.uri); err != nil && !errors.Is(err, store.ErrInUse) {
			t.Fatalf("probing a store that is held: %v", err)
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("after", []byte("the probe")) })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := store.Probe(ctx(), db.uri); err != nil {
			t.Errorf("probing a store that nobody holds: %v", err)
		}
	}},
	{"Commit_FailingJob_DoesNotHarmTheOthers", func(t *testing.T, db *database) {
		s := db.open(t)
		no := errors.New("no")
		put := func(i int, err error) func(tx *store.Tx) error {
			return func(tx *store.Tx) error {
				if e := tx.PutSetting(fmt.Sprint("k", i), []byte{byte(i)}); e != nil {
					return e
				}
				return err
			}
		}
		// Many at once, so that they share transactions in ever new ways.
		const n = 400
		var wait sync.WaitGroup
		errs := make([]error, n)
		for i := range n {
			wait.Go(func() {
				var err error
				if i%3 == 0 {
					err = no
				}
				errs[i] = s.Commit(ctx(), s.Epoch(), put(i, err))
			})
		}
		wait.Wait()
		for i, err := range errs {
			_, readErr := s.Setting(ctx(), fmt.Sprint("k", i))
			if i%3 == 0 {
				expectError(t, "failing job", err, no)
				expectError(t, "what it wrote", readErr, store.ErrNotFound)
			} else if err != nil || readErr != nil {
				t.Errorf("good job %d: %v, %v", i, err, readErr)
			}
		}
	}},
	{"Commit_FailingIngestAmongOthers_LeavesTheirMemory", func(t *testing.T, db *database) {
		s := db.open(t)
		no := errors.New("no")
		const n = 300
		var wait sync.WaitGroup
		for i := range n {
			wait.Go(func() {
				_ = s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
					lanes, err := tx.Ingest(transaction(pdu("!a", fmt.Sprint("$", i)), pdu(fmt.Sprint("!", i), fmt.Sprint("$x", i))))
					if err == nil && i%2 == 0 {
						err = no
					} else if err == nil && i%5 == 0 {
						err = tx.Finish("!a", lanes[0].Refs[0])
					}
					return err
				})
			})
		}
		wait.Wait()
		open := map[string]bool{}
		for _, l := range backlog(t, s) {
			for _, ref := range l.Refs {
				e, err := s.Element(ctx(), ref)
				if err != nil {
					t.Fatal(err)
				}
				open[e.Key] = true
			}
		}
		for i := range n {
			good := i%2 == 1
			expect(t, fmt.Sprintf("event $x%d waits", i), open[fmt.Sprint("$x", i)], good)
			expect(t, fmt.Sprintf("event $%d waits", i), open[fmt.Sprint("$", i)], good && i%5 != 0)
			fresh := len(ingest(t, s, transaction(pdu("!b", fmt.Sprint("$", i))))) > 0
			expect(t, fmt.Sprintf("event $%d is new", i), fresh, !good)
		}
	}},
	{"Commit_SameEventInTwoTransactionsOfOneGroup_IsTakenOnce", func(t *testing.T, db *database) {
		s := db.open(t)
		no := errors.New("no")
		var lanes [4]int
		take := func(i int, err error) func(tx *store.Tx) error {
			return func(tx *store.Tx) error {
				l, e := tx.Ingest(transaction(pdu("!a", "$1")))
				lanes[i] = len(l)
				if e != nil {
					return e
				}
				return err
			}
		}
		errs := together(t, s, take(0, no), take(1, nil), take(2, nil), take(3, no))
		expect(t, "errors", errs, []error{no, nil, nil, no})
		expect(t, "lanes", lanes, [4]int{1, 1, 0, 0})
		expect(t, "backlog", keys(t, s, backlog(t, s)), "!a: $1")
	}},
	{"Commit_PanickingJob_IsRolledBack", func(t *testing.T, db *database) {
		s := db.open(t)
		err := s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
			if err := tx.PutSetting("k", []byte("v")); err != nil {
				return err
			}
			panic("oh")
		})
		if err == nil || !strings.Contains(err.Error(), "oh") {
			t.Errorf("error is %v", err)
		}
		_, err = s.Setting(ctx(), "k")
		expectError(t, "Setting", err, store.ErrNotFound)
		Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("k", []byte("v")) })
	}},
	{"AfterCommit_RunsInTheOrderOfTheJobs_AndNotAfterFailure", func(t *testing.T, db *database) {
		s := db.open(t)
		var ran, want []int
		job := func(i int, err error) func(tx *store.Tx) error {
			return func(tx *store.Tx) error {
				tx.AfterCommit(func() {
					ran = append(ran, i)
					if _, e := s.Setting(ctx(), fmt.Sprint("k", i)); e != nil {
						t.Errorf("hook %d ran before its commit: %v", i, e)
					}
				})
				return errors.Join(tx.PutSetting(fmt.Sprint("k", i), nil2empty()), err)
			}
		}
		no := errors.New("no")
		var jobs []func(tx *store.Tx) error
		for i := range 20 {
			var err error
			if i%4 == 0 {
				err = no
			} else {
				want = append(want, i)
			}
			jobs = append(jobs, job(i, err))
		}
		together(t, s, jobs...)
		expect(t, "hooks in the order of the jobs", ran, want)
	}},
	{"Commit_DoneContext_IsDropped", func(t *testing.T, db *database) {
		s := db.open(t)
		c, cancel := context.WithCancel(ctx())
		cancel()
		ran := false
		err := s.Commit(c, s.Epoch(), func(tx *store.Tx) error { ran = true; return nil })
		expectError(t, "Commit", err, context.Canceled)
		expect(t, "ran", ran, false)
	}},
	{"Commit_ContextEndsAfterTheStart_IsWaitedFor", func(t *testing.T, db *database) {
		s := db.open(t)
		c, cancel := context.WithCancel(ctx())
		err := s.Commit(c, s.Epoch(), func(tx *store.Tx) error {
			cancel()
			return tx.PutSetting("k", []byte("v"))
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Setting(ctx(), "k"); err != nil {
			t.Error(err)
		}
	}},
	{"Commit_WrongEpoch_IsFenced", func(t *testing.T, db *database) {
		s := db.open(t)
		first := s.Epoch()
		ran := false
		expectError(t, "an epoch that is still to come", s.Commit(ctx(), first+1, func(tx *store.Tx) error { ran = true; return nil }), store.ErrFenced)
		shut(t, s)
		s = db.open(t)
		if s.Epoch() <= first {
			t.Errorf("epoch %d came after %d", s.Epoch(), first)
		}
		expectError(t, "the last process's epoch", s.Commit(ctx(), first, func(tx *store.Tx) error { ran = true; return nil }), store.ErrFenced)
		expect(t, "a fenced job ran", ran, false)
	}},
	{"Commit_AfterClose_IsClosed", func(t *testing.T, db *database) {
		s := db.open(t)
		shut(t, s)
		expectError(t, "Commit", s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error { return nil }), store.ErrClosed)
		_, err := s.Setting(ctx(), "k")
		expectError(t, "Setting", err, store.ErrClosed)
	}},
	{"Close_WhileJobsWait_AnswersEverybody", func(t *testing.T, db *database) {
		s := db.open(t)
		var wait sync.WaitGroup
		errs := make([]error, 100)
		for i := range errs {
			wait.Go(func() {
				errs[i] = s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error { return tx.PutSetting(fmt.Sprint("k", i), []byte("v")) })
			})
		}
		shut(t, s)
		wait.Wait()
		s = db.open(t)
		for i, err := range errs {
			_, readErr := s.Setting(ctx(), fmt.Sprint("k", i))
			if err == nil && readErr != nil {
				t.Errorf("commit %d was acknowledged and is lost: %v", i, readErr)
			} else if err != nil && !errors.Is(err, store.ErrClosed) {
				t.Errorf("commit %d: %v", i, err)
			}
		}
	}},
	{"Tx_AfterTheJob_IsRefused", func(t *testing.T, db *database) {
		s := db.open(t)
		var leaked *store.Tx
		Commit(t, s, func(tx *store.Tx) error { leaked = tx; return nil })
		if err := leaked.PutSetting("k", []byte("v")); err == nil {
			t.Error("a transaction works after its job")
		}
	}},
	{"Commit_StatementErrorThatTheJobHides_IsNotCommitted", func(t *testing.T, db *database) {
		s := db.open(t)
		Commit(t, s, func(tx *store.Tx) error { return tx.AddMediaKey(&store.MediaKey{Secret: []byte("s")}) })
		err := s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
			_ = tx.PutSetting("k", []byte("v"))
			_ = tx.AddMediaKey(&store.MediaKey{Secret: []byte("s")}) // taken: the job's own decision, not a failed statement
			return nil
		})
		if err != nil {
			t.Errorf("ErrTaken ended a job that can live with it: %v", err)
		}
	}},
}

func nil2empty() []byte { return []byte{} }
