package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func take(s *store.Store, id string, size int) (n int, err error) {
	raw := make([]byte, size) // that cannot be packed
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw)
	err = s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
		lanes, err := tx.Ingest(&store.Transaction{Elements: []store.Element{
			{Kind: store.KindPDU, Lane: "!a", Key: id, Raw: raw}}})
		n = len(lanes)
		return err
	})
	return n, err
}

func TestCommit_DiskFull_FailsWholeAndWorksAgainAfterwards(t *testing.T) {
	s := storetest.New(t)
	if n, err := take(s, "$1", 1000); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	store.Pragma(t, s, "PRAGMA max_page_count = 60") // the file holds about 50 already
	failed := 0
	for i := range 5 {
		if _, err := take(s, "$big", 1<<20); err == nil {
			t.Fatalf("attempt %d went into a full file", i)
		}
		failed++
	}
	// What fits still goes in, and a group in which one does not fit loses that one only.
	if n, err := take(s, "$2", 100); n != 1 || err != nil {
		t.Errorf("a small event: %d, %v", n, err)
	}
	st, err := s.InboxStats(context.Background())
	if err != nil || st.Rows != 2 {
		t.Errorf("the inbox has %d rows, %v", st.Rows, err)
	}
	store.Pragma(t, s, "PRAGMA max_page_count = 1000000")
	if n, err := take(s, "$big", 1<<20); n != 1 || err != nil {
		t.Errorf("after there is room again: %d, %v", n, err)
	}
	if n, err := take(s, "$1", 1000); n != 0 || err != nil {
		t.Errorf("what was taken before: %d, %v", n, err)
	}
}

func TestCommit_ConnectionLost_FailsWholeAndReconnects(t *testing.T) {
	s := storetest.Open(t, storetest.Postgres(t), store.Options{})
	hook := false
	err := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
		tx.AfterCommit(func() { hook = true })
		if _, err := tx.Ingest(&store.Transaction{Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: "$1", Raw: []byte("x")}}}); err != nil {
			t.Error(err)
		}
		return tx.EndConnection()
	})
	if err == nil || hook {
		t.Errorf("a commit without a connection: %v, hook ran: %v", err, hook)
	}
	for want := 1; want >= 0; want-- {
		if n, err := take(s, "$1", 10); n != want || err != nil {
			t.Errorf("taken: %d, %v, want %d", n, err, want)
		}
	}
}

func TestResolve_TellsWhatBecameOfACommit(t *testing.T) {
	s := storetest.Open(t, storetest.Postgres(t), store.Options{})
	storetest.Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("k", []byte("v")) })
	if committed, err := store.Resolve(s, io.ErrUnexpectedEOF); !committed || err != nil {
		t.Errorf("after a commit: %v, %v", committed, err)
	}
	_ = s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
		_ = tx.PutSetting("k", []byte("w"))
		return tx.EndConnection()
	})
	if committed, err := store.Resolve(s, io.ErrUnexpectedEOF); committed || err != nil {
		t.Errorf("after a lost transaction: %v, %v", committed, err)
	}
}

func TestOpen_SQLiteFileIsPrivate(t *testing.T) {
	uri := storetest.SQLite(t)
	path := strings.TrimPrefix(uri, "sqlite:")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t, uri, store.Options{})
	storetest.Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("k", []byte("v")) })
	for _, end := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + end)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", info.Name(), info.Mode().Perm())
		}
	}
}

func TestOpen_OddPaths_AreTakenAsTheyAre(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a b.db", "100%25.db", "x#y.db", "ü&mode=ro.db"} {
		storetest.Open(t, "sqlite:"+filepath.Join(folder, name), store.Options{})
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Error(err)
		}
	}
	storetest.Open(t, "sqlite://"+filepath.Join(folder, "slashes.db"), store.Options{})
	if _, err := os.Stat(filepath.Join(folder, "slashes.db")); err != nil {
		t.Error(err)
	}
	t.Chdir(folder)
	storetest.Open(t, "sqlite:relative.db", store.Options{})
	if _, err := os.Stat(filepath.Join(folder, "relative.db")); err != nil {
		t.Error(err)
	}
}

func TestOpen_BadURI_NamesTheMendAndNoPassword(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                  "sqlite:PATH",
		"store.db":                          "sqlite:PATH",
		"mysql://u:hunter2@h/d":             "mysql",
		"sqlite:":                           "no path",
		"sqlite::memory:":                   "keeps nothing",
		"sqlite:/x.db?_sync=off":            "options",
		"sqlite:/does/not/exist/x.db":       "create it",
		"postgres://u:hunter2%zz@h/d":       "percent-encoded",
		"postgres://u:hunter2@127.0.0.1:1/": "127.0.0.1:1",
		"postgres://u:hunter2@127.0.0.1:1/d?sslmode=hunter2":       "127.0.0.1:1",
		"postgres://127.0.0.1:1/d?user=u&password=hunter2&x=y z":   "127.0.0.1:1",
		"postgres://u:hunter2@127.0.0.1:hunter2/d":                 "percent-encoded",
		"postgres://u:hunter2@127.0.0.1:1/d?connect_timeout=abc":   "127.0.0.1:1",
		"postgres://u:hun%20ter2@127.0.0.1:1/d?sslmode=hun%20ter2": "127.0.0.1:1",
	} {
		_, err := store.Open(context.Background(), uri, store.Options{})
		if err == nil {
			t.Fatalf("%q was opened", uri)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the error does not say %q: %v", uri, want, err)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(fmt.Sprintf("%+v", e), "hunter2") || strings.Contains(e.Error(), "hun ter2") {
				t.Errorf("the error tells the password: %v", e)
			}
		}
	}
}

func TestOpen_SQLiteIsDurable_AndLessIsRefused(t *testing.T) {
	s := storetest.New(t)
	conn := store.WriteConnection(t, s)
	defer conn.Close()
	if err := store.AssertDurable(conn); err != nil {
		t.Errorf("as opened: %v", err)
	}
	for _, level := range []string{"OFF", "NORMAL"} {
		if _, err := conn.ExecContext(context.Background(), "PRAGMA synchronous = "+level); err != nil {
			t.Fatal(err)
		}
		if err := store.AssertDurable(conn); err == nil {
			t.Errorf("synchronous=%s is taken for durable", level)
		}
	}
}

func TestOpen_NewSQLiteDatabase_HasPagesOf8KiB(t *testing.T) {
	conn := store.WriteConnection(t, storetest.New(t))
	defer conn.Close()
	var size int
	if err := conn.QueryRowContext(context.Background(), "PRAGMA page_size").Scan(&size); err != nil || size != 8<<10 {
		t.Errorf("%d bytes, %v", size, err)
	}
}

func TestReader_CannotWrite(t *testing.T) {
	s := storetest.New(t)
	if _, err := store.Reader(s).Exec("DELETE FROM epoch"); err == nil {
		t.Error("a reading connection writes")
	}
}

func TestCommit_LongRun_UsesTheWALAgain(t *testing.T) {
	uri := storetest.SQLite(t)
	s := storetest.Open(t, uri, store.Options{})
	const each = 512 << 10
	written := int64(0)
	// How far the checkpoints lag depends on the machine; 16 MiB that the file does not have were written over others.
	for i := 0; ; i++ {
		if _, err := take(s, fmt.Sprint("$", i), each); err != nil {
			t.Fatal(err)
		}
		written += each
		info, err := os.Stat(strings.TrimPrefix(uri, "sqlite:") + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case info.Size() < written-16<<20:
			return
		case i == 1000:
			t.Fatalf("the WAL has grown to %d bytes, and %d were written", info.Size(), written)
		}
	}
}
