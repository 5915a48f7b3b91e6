package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// child is what another process does; it reports on its standard output, a line each.
func child(what string) error {
	kind, uri, _ := strings.Cut(what, " ")
	switch kind {
	case "write":
		return writeSample(uri)
	case "read":
		return readSample(uri)
	case "request":
		return requestForEver(uri)
	}
	s, err := store.Open(context.Background(), uri, store.Options{})
	if err != nil {
		return err
	}
	switch kind {
	case "ingest":
		return ingestForEver(s)
	case "replay":
		return replayForEver(s)
	case "hold":
		// A commit after each line that comes in.
		fmt.Println("ready")
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			err := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error { return tx.PutSetting("child", in.Bytes()) })
			fmt.Println("fenced:", errors.Is(err, store.ErrFenced), "error:", err)
		}
		return s.Close()
	}
	return fmt.Errorf("unknown child %q", kind)
}

// ingestForEver commits from several goroutines and says what was acknowledged, once it was.
func ingestForEver(s *store.Store) error {
	var out sync.Mutex
	var wait sync.WaitGroup
	for lane := range 8 {
		wait.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("$%d-%d", lane, i)
				room := fmt.Sprint("!", lane)
				var refs []store.LaneRefs
				err := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) (err error) {
					refs, err = tx.Ingest(&store.Transaction{Elements: []store.Element{
						{Kind: store.KindPDU, Lane: room, Key: id, Raw: []byte(id)},
						{Kind: store.KindPDU, Lane: room + "b", Key: id + "b", Raw: []byte(id + "b")},
					}})
					return err
				})
				if err == nil {
					out.Lock()
					fmt.Println("in", id)
					out.Unlock()
					err = s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
						if err := tx.PutSetting(id, []byte("effect")); err != nil {
							return err
						}
						return tx.Finish(room, refs[0].Refs[0])
					})
				}
				if err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println("done", id)
				out.Unlock()
			}
		})
	}
	wait.Wait()
	return nil
}

func startChild(t *testing.T, binary, what string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(out)
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func killLoop(t *testing.T, uri string, rounds int) {
	for round := range rounds {
		cmd, in, out := startChild(t, self(t), "ingest "+uri)
		acknowledged := map[string]string{}
		for n := 0; n < 200+100*round && out.Scan(); n++ {
			state, id, _ := strings.Cut(out.Text(), " ")
			if state == "error:" {
				t.Fatal(out.Text())
			}
			acknowledged[id] = state
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for out.Scan() { // what it had said before it died
			if state, id, ok := strings.Cut(out.Text(), " "); ok && (state == "in" || state == "done") {
				acknowledged[id] = state
			}
		}
		_ = cmd.Wait()
		in.Close()

		s := storetest.Open(t, uri, store.Options{})
		waiting := map[string]bool{}
		err := s.Backlog(context.Background(), func(l store.LaneRefs) error {
			for _, ref := range l.Refs {
				e, err := s.Element(context.Background(), ref)
				if err != nil {
					return err
				}
				if waiting[e.Key] {
					return fmt.Errorf("%s waits twice", e.Key)
				}
				waiting[e.Key] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for id, state := range acknowledged {
			_, err := s.Setting(context.Background(), id)
			effect := err == nil
			switch {
			case !waiting[id+"b"]:
				t.Errorf("round %d: %s was acknowledged and its neighbour does not wait", round, id)
			case state == "done" && (waiting[id] || !effect):
				t.Errorf("round %d: %s was finished; waiting: %v, effect: %v", round, id, waiting[id], effect)
			case waiting[id] == effect:
				t.Errorf("round %d: %s waits: %v, its effect is there: %v", round, id, waiting[id], effect)
			}
		}
		// The next round's names are the same: make room.
		if err = s.Close(); err != nil {
			t.Fatal(err)
		}
		if path, ok := strings.CutPrefix(uri, "sqlite:"); ok {
			for _, end := range []string{"", "-wal", "-shm"} {
				_ = os.Remove(path + end)
			}
		}
	}
}

func TestKilledProcess_EverythingAcknowledgedIsThere_SQLite(t *testing.T) {
	killLoop(t, storetest.SQLite(t), 5)
}

func TestKilledProcess_EverythingAcknowledgedIsThere_PostgreSQL(t *testing.T) {
	fresh := storetest.PostgresServer(t)
	for range 2 {
		killLoop(t, fresh(t), 1)
	}
}

func TestOpen_SecondProcessOnSQLite_IsInUse(t *testing.T) {
	uri := storetest.SQLite(t)
	cmd, in, out := startChild(t, self(t), "hold "+uri)
	if !out.Scan() || out.Text() != "ready" {
		t.Fatal("the child says", out.Text())
	}
	for _, name := range []string{uri, linkTo(t, uri)} {
		_, err := store.Open(context.Background(), name, store.Options{})
		if !errors.Is(err, store.ErrInUse) {
			t.Fatalf("opening %s: %v", name, err)
		}
		if !strings.Contains(err.Error(), strings.TrimPrefix(name, "sqlite:")) || !strings.Contains(err.Error(), "stop") {
			t.Errorf("the error names neither file nor mend: %v", err)
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	storetest.Open(t, uri, store.Options{})
}

func linkTo(t *testing.T, uri string) string {
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(strings.TrimPrefix(uri, "sqlite:"), link); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + link
}

func TestCommit_AnotherProcessTookOver_IsFenced(t *testing.T) {
	uri := storetest.Postgres(t)
	cmd, in, out := startChild(t, self(t), "hold "+uri)
	say := func(want string) {
		t.Helper()
		if _, err := fmt.Fprintln(in, "x"); err != nil {
			t.Fatal(err)
		}
		if !out.Scan() || !strings.HasPrefix(out.Text(), want) {
			t.Errorf("the child says %q, want %q", out.Text(), want)
		}
	}
	if !out.Scan() {
		t.Fatal("no child")
	}
	say("fenced: false error: <nil>")
	s := storetest.Open(t, uri, store.Options{})
	say("fenced: true")
	storetest.Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("parent", []byte("x")) })
	in.Close()
	_ = cmd.Wait()
}

func TestIngest_CommittedByAnotherProcess_IsKnown(t *testing.T) {
	uri := storetest.Postgres(t)
	first := storetest.Open(t, uri, store.Options{})
	second := storetest.Open(t, uri, store.Options{})
	// Two processes that share an epoch, as replicas will.
	store.SetEpoch(first, second.Epoch())
	take := func(s *store.Store, ids ...string) (n int) {
		tr := &store.Transaction{}
		for _, id := range ids {
			tr.Elements = append(tr.Elements, store.Element{Kind: store.KindPDU, Lane: "!a", Key: id, Raw: []byte(id)})
		}
		storetest.Commit(t, s, func(tx *store.Tx) error {
			lanes, err := tx.Ingest(tr)
			n = 0
			for _, l := range lanes {
				n += len(l.Refs)
			}
			return err
		})
		return n
	}
	for i, c := range []struct {
		s    *store.Store
		ids  []string
		want int
	}{
		{first, []string{"$1"}, 1}, {second, []string{"$1", "$2"}, 1}, {first, []string{"$2", "$3"}, 1}, {second, []string{"$1", "$2", "$3"}, 0},
	} {
		if got := take(c.s, c.ids...); got != c.want {
			t.Errorf("step %d: %d events are new, want %d", i, got, c.want)
		}
	}
	// And at once.
	var wait sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for i := range 100 {
		for _, s := range []*store.Store{first, second} {
			wait.Go(func() {
				n := take(s, fmt.Sprint("$x", i))
				mu.Lock()
				total += n
				mu.Unlock()
			})
		}
	}
	wait.Wait()
	if total != 100 {
		t.Errorf("100 events came to two processes, %d were taken", total)
	}
}

// The process was paused for so long that even the row that took its number was forgotten since.
func TestIngest_AfterALongPause_KnowsWhatOthersTookInAndComesBehindIt(t *testing.T) {
	uri := storetest.Postgres(t)
	paused := storetest.Open(t, uri, store.Options{})
	other := storetest.Open(t, uri, store.Options{})
	store.SetEpoch(paused, other.Epoch())
	take := func(s *store.Store, id string) (refs []store.LaneRefs) {
		storetest.Commit(t, s, func(tx *store.Tx) (err error) {
			refs, err = tx.Ingest(&store.Transaction{Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: id, Raw: []byte(id)}}})
			return err
		})
		return refs
	}
	take(paused, "$1")
	take(other, "$2")
	last := take(other, "$3")[0].Refs[0].Seq
	store.Pragma(t, other, fmt.Sprintf("DELETE FROM seen WHERE seq < %d", last))
	if refs := take(paused, "$3"); refs != nil {
		t.Errorf("what another process took in is new: %v", refs)
	}
	if refs := take(paused, "$4"); len(refs) != 1 || refs[0].Refs[0].Seq != last+1 {
		t.Errorf("behind row %d comes %v", last, refs)
	}
}

func TestAddMediaKey_TwoProcessesAtOnce_MakeOneFirstKey(t *testing.T) {
	uri := storetest.Postgres(t)
	first := storetest.Open(t, uri, store.Options{})
	second := storetest.Open(t, uri, store.Options{})
	store.SetEpoch(first, second.Epoch())
	var wait sync.WaitGroup
	var errs [2]error
	for i, s := range []*store.Store{first, second} {
		wait.Go(func() {
			errs[i] = s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
				return tx.AddMediaKey(&store.MediaKey{Secret: []byte{byte(i)}})
			})
		})
	}
	wait.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("errors are %v and %v: one must succeed", errs[0], errs[1])
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, store.ErrTaken) {
			t.Error(err)
		}
	}
	keys, err := first.MediaKeys(context.Background())
	if err != nil || len(keys) != 1 {
		t.Errorf("keys are %v, %v", keys, err)
	}
}
