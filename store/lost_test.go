package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestCommit_TransactionEndedByAStatement_IsAnError(t *testing.T) {
	s := storetest.Open(t, storetest.Postgres(t), store.Options{})
	for range 10 { // another job may come into the group, and notice; not into each
		err := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
			_, err := tx.Ingest(&store.Transaction{Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: "$1", Raw: []byte("x")}}})
			if tx.Behind("SELECT 1/0") == nil {
				t.Error("the statement did not fail")
			}
			return err
		})
		if err == nil {
			t.Error("what COMMIT rolled back was acknowledged")
		}
	}
	for want := 1; want >= 0; want-- {
		if n, err := take(s, "$1", 10); n != want || err != nil {
			t.Errorf("taken: %d, %v, want %d", n, err, want)
		}
	}
}

func TestClose_PostgresConnectionThatEndsBadly_IsNoError(t *testing.T) {
	if err := store.ClosePostgres(lost{}); err != nil {
		t.Error(err)
	}
}

// lost makes connections that were lost without anybody noticing.
type lost struct{ driver.Conn }

func (l lost) Connect(context.Context) (driver.Conn, error) { return l, nil }
func (l lost) Driver() driver.Driver                        { return nil }
func (l lost) Close() error                                 { return driver.ErrBadConn }

func TestClose_SQLite_TheFileAloneIsEverything(t *testing.T) {
	uri := storetest.SQLite(t)
	path := strings.TrimPrefix(uri, "sqlite:")
	s := storetest.Open(t, uri, store.Options{})
	storetest.Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("k", []byte("v")) })
	// Somebody else has the file open, as the encryption store does, or who looks at it.
	other, err := sql.Open(store.SQLiteDriver, store.SQLiteDSN(path, true))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.PingContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("SELECT COUNT(*) FROM setting"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "alone.db")
	if err := os.WriteFile(alone, data, 0o600); err != nil {
		t.Fatal(err)
	}
	copied := storetest.Open(t, "sqlite:"+alone, store.Options{})
	if value, err := copied.Setting(context.Background(), "k"); err != nil || string(value) != "v" {
		t.Errorf("the copy of the file has %q, %v", value, err)
	}
}

func TestOpen_SQLiteWriter_WaitsForALockForTwoSecondsOnly(t *testing.T) {
	conn := store.WriteConnection(t, storetest.New(t))
	defer conn.Close()
	var ms int
	if err := conn.QueryRowContext(context.Background(), "PRAGMA busy_timeout").Scan(&ms); err != nil || ms != 2000 {
		t.Errorf("%d ms, %v", ms, err)
	}
}
