package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

func openAt(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), "sqlite:"+path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(key string) func(*store.Tx) error {
	return func(tx *store.Tx) error { return tx.PutSetting(key, []byte(key)) }
}

func TestCommitSoon_IsDurableWhenItReturns_AndTellsAfterCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	told := 0
	err := s.CommitSoon(context.Background(), s.Epoch(), func(tx *store.Tx) error {
		tx.AfterCommit(func() { told++ })
		return tx.PutSetting("a", []byte("b"))
	})
	if err != nil || told != 1 {
		t.Fatalf("error %v, told %d times", err, told)
	}
	if value, err := s.Setting(context.Background(), "a"); err != nil || string(value) != "b" {
		t.Fatalf("%q, %v", value, err)
	}
	if err = s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Jobs of both kinds from many sides, with some that fail: each is answered with its own outcome, and what holds is what
// was answered with nil.
func TestCommitSoon_BesideCommit_EachJobHasItsOwnOutcome(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	defer s.Close()
	ctx := context.Background()
	errJob := errors.New("for the test")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			commit := s.CommitSoon
			if i%4 == 0 {
				commit = s.Commit
			}
			for n := range 25 {
				key := fmt.Sprintf("%d/%d", i, n)
				if n%5 == 4 {
					err := commit(ctx, s.Epoch(), func(tx *store.Tx) error { return errors.Join(put(key)(tx), errJob) })
					if !errors.Is(err, errJob) {
						t.Errorf("%s: error %v", key, err)
					}
				} else if err := commit(ctx, s.Epoch(), put(key)); err != nil {
					t.Errorf("%s: error %v", key, err)
				}
				// Whoever got an answer sees what came of it.
				if _, err := s.Setting(ctx, key); errors.Is(err, store.ErrNotFound) != (n%5 == 4) {
					t.Errorf("%s: afterwards %v", key, err)
				}
			}
		})
	}
	all.Wait()
}

func TestCommitSoon_OfAnotherEpoch_IsFenced(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	defer s.Close()
	if err := s.CommitSoon(context.Background(), s.Epoch()-1, put("a")); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("error %v", err)
	}
	// The writer goes on.
	if err := s.CommitSoon(context.Background(), s.Epoch(), put("a")); err != nil {
		t.Fatal(err)
	}
}

func TestCommitSoon_WhileTheStoreCloses_IsDurableOrErrClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	ctx := context.Background()
	var mu sync.Mutex
	held := map[string]bool{}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%d/%d", i, n)
				err := s.CommitSoon(ctx, s.Epoch(), put(key))
				mu.Lock()
				held[key] = err == nil
				enough := len(held) > 100
				mu.Unlock()
				if enough {
					go s.Close()
				}
				if err != nil {
					if !errors.Is(err, store.ErrClosed) {
						t.Errorf("%s: error %v", key, err)
					}
					return
				}
			}
		})
	}
	all.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path)
	defer s.Close()
	for key, ok := range held {
		if _, err := s.Setting(ctx, key); (err == nil) != ok {
			t.Errorf("%s was answered with success: %t; it is in the store: %v", key, ok, err)
		}
	}
}

func TestCommitSoon_UnderCommitsWithoutEnd_ComesToItsTurn(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for i := range 400 { // more than one group takes
		all.Go(func() {
			for ctx.Err() == nil {
				if err := s.Commit(context.Background(), s.Epoch(), put(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 5 {
		if err := s.CommitSoon(context.Background(), s.Epoch(), put(fmt.Sprint("soon", i))); err != nil {
			t.Error(err)
		}
	}
	cancel()
	all.Wait()
}

// However many are in a hurry, and although one of them always waits already when the writer has committed.
func TestCommitSoon_WhileSomebodyAlwaysWaitsForCommit_ComesToItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
		defer s.Close()
		ctx := context.Background()
		over := make(chan struct{})
		go func() {
			defer close(over)
			if err := s.CommitSoon(ctx, s.Epoch(), put("soon")); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		const enough = 3000 // a dozen groups
		ran, ended := 0, make(chan struct{})
		var hurry func(tx *store.Tx) error
		hurry = func(tx *store.Tx) error {
			select {
			case <-over:
				close(ended)
				return nil
			default:
			}
			if ran++; ran == enough {
				t.Errorf("%d jobs of Commit went before a job of CommitSoon", ran)
				close(ended)
				return nil
			}
			go func() {
				if err := s.Commit(ctx, s.Epoch(), hurry); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(time.Millisecond) // of the bubble's time, which passes when the next one waits
			return put("hurry")(tx)
		}
		if err := s.Commit(ctx, s.Epoch(), hurry); err != nil {
			t.Error(err)
		}
		<-ended
		<-over
	})
}
