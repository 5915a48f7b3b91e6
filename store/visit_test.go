package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func onBothEngines(t *testing.T, run func(t *testing.T, uri string)) {
	t.Run("SQLite", func(t *testing.T) { run(t, storetest.SQLite(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { run(t, storetest.Postgres(t)) })
}

func TestVisit_SchemaThatIsNotThisPrograms_SaysWhichOfTheTwoIsToChange(t *testing.T) {
	onBothEngines(t, func(t *testing.T, uri string) {
		s := storetest.Open(t, uri, store.Options{})
		for change, want := range map[string]string{
			"UPDATE trestle_version SET version = 1, compat = 1":       "start the bridge with this program",
			"UPDATE trestle_version SET version = 1000, compat = 1000": "run the newer program",
			"ALTER TABLE trestle_version RENAME TO gone":               "start the bridge, which fills it",
		} {
			t.Run(want, func(t *testing.T) {
				store.Pragma(t, s, change)
				v, err := store.Visit(context.Background(), uri)
				if err == nil {
					v.Close()
				}
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %v, want %q", err, want)
				}
				if strings.HasPrefix(change, "ALTER") {
					store.Pragma(t, s, "ALTER TABLE gone RENAME TO trestle_version")
				}
			})
		}
		store.Pragma(t, s, "UPDATE trestle_version SET version = 1000, compat = 1")
		v, err := store.Visit(context.Background(), uri)
		if err != nil {
			t.Fatalf("a newer schema that this program can read: %v", err)
		}
		v.Close()
	})
}

func TestVisit_NoDatabase_IsNotFoundAndMakesNone(t *testing.T) {
	uri := storetest.SQLite(t)
	if _, err := store.Visit(context.Background(), uri); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(strings.TrimPrefix(uri, "sqlite:")); err == nil {
		t.Error("a database was made")
	}
}

func TestVisit_Unreachable_TellsNoPassword(t *testing.T) {
	_, err := store.Visit(context.Background(), "postgres://u:hunter2@127.0.0.1:1/d?sslmode=disable")
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

// requestForEver asks for something to be done with each of 100 dead letters, again and again.
func requestForEver(uri string) error {
	v, err := store.Visit(context.Background(), uri)
	if err != nil {
		return err
	}
	defer v.Close()
	for {
		for id := range int64(100) {
			action := store.ActionReplay
			if id%2 == 1 {
				action = store.ActionDrop
			}
			if _, err := v.Request(context.Background(), action, id+1); err != nil {
				return err
			}
			fmt.Println("asked", id+1)
		}
	}
}

func TestVisit_AnotherProcessAsksWhileThisOneCommits_NeitherFails(t *testing.T) {
	onBothEngines(t, func(t *testing.T, uri string) {
		s := storetest.Open(t, uri, store.Options{})
		for range 100 {
			storetest.Commit(t, s, func(tx *store.Tx) error { return tx.Bury(&store.DeadLetter{Kind: "pdu"}) })
		}
		cmd, in, out := startChild(t, self(t), "request "+uri)
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			in.Close()
		}()
		asked := make(chan error, 2)
		go func() {
			n := 0
			for out.Scan() {
				if !strings.HasPrefix(out.Text(), "asked") {
					asked <- errors.New(out.Text())
					return
				}
				if n++; n == 40 {
					asked <- nil
				}
			}
		}()
		for done := false; !done; {
			select {
			case err := <-asked:
				if done = true; err != nil {
					t.Error("the other process says", err)
				}
			default:
			}
			if _, err := s.OpenRequests(context.Background(), 100); err != nil {
				t.Fatal(err)
			}
			storetest.Commit(t, s, func(tx *store.Tx) error {
				return errors.Join(tx.PutSetting("k", []byte("v")), tx.RefuseReplay(1, "not now"))
			})
		}
	})
}

// replayForEver replays dead letters, in commits of several, and says what was replayed once it was.
func replayForEver(s *store.Store) error {
	for {
		list, err := s.DeadLetters(context.Background(), store.LetterQuery{Limit: 7})
		if err != nil || len(list) == 0 {
			return err
		}
		err = s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
			for _, d := range list {
				if d.Kind == "outbox" {
					if _, err := tx.ReplayOutgoing(d.ID); err != nil {
						return err
					}
					continue
				}
				e := sampleElement(d.Lane, d.Key)
				e.Again = true
				if _, err := tx.Replay(d.ID, &store.Transaction{Elements: []store.Element{e}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, d := range list {
			fmt.Println("replayed", d.Key)
		}
	}
}

func TestKilledProcess_EveryReplayedLetterIsDeadOrWaits_NeverBothNorNeither(t *testing.T) {
	onBothEngines(t, func(t *testing.T, uri string) {
		const n = 400
		s := storetest.Open(t, uri, store.Options{})
		storetest.Commit(t, s, func(tx *store.Tx) error {
			for i := range n {
				d := store.DeadLetter{Kind: "pdu", Lane: "!a", Key: fmt.Sprint("$", i)}
				if i%2 == 1 {
					d.Kind, d.Op = "outbox", "message"
				}
				if err := tx.Bury(&d); err != nil {
					return err
				}
			}
			return nil
		})
		said := map[string]bool{}
		for round := 0; ; round++ {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			cmd, in, out := startChild(t, self(t), "replay "+uri)
			// The next commit is under way when the line is read.
			ended := !readUntil(out, said, 10+13*round)
			if err := cmd.Process.Kill(); err != nil && !ended {
				t.Fatal(err)
			}
			readUntil(out, said, n+1)
			_ = cmd.Wait()
			in.Close()
			s = storetest.Open(t, uri, store.Options{})
			if left := checkReplayed(t, s, n, said); left == 0 {
				return
			}
		}
	})
}

// readUntil notes what the child says, for so many lines; false when it has ended.
func readUntil(out *bufio.Scanner, said map[string]bool, lines int) bool {
	for range lines {
		if !out.Scan() {
			return false
		}
		if key, ok := strings.CutPrefix(out.Text(), "replayed "); ok {
			said[key] = true
		}
	}
	return true
}

func checkReplayed(t *testing.T, s *store.Store, n int, said map[string]bool) (left int) {
	t.Helper()
	where := map[string]string{}
	list, err := s.DeadLetters(context.Background(), store.LetterQuery{Limit: n})
	for _, d := range list {
		where[d.Key] += "dead"
	}
	err = errors.Join(err, s.Backlog(context.Background(), func(l store.LaneRefs) error {
		e, err := s.Element(context.Background(), l.Refs[0])
		where[e.Key] += "inbox"
		return err
	}), s.OutgoingBacklog(context.Background(), func(_ string, id int64) error {
		o, err := s.Outgoing(context.Background(), id)
		if err == nil {
			where[o.TxnID] += "outbox"
		}
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		key := fmt.Sprint("$", i)
		want := "inbox"
		if i%2 == 1 {
			want = "outbox"
		}
		if got := where[key]; got != want && got != "dead" || got == "dead" && said[key] {
			t.Errorf("%s is %q, and was replayed: %v", key, got, said[key])
		}
	}
	return len(list)
}
