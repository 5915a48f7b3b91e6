package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.mau.fi/util/dbutil"

	"github.com/trestle-bridge/trestle/store"
)

func foreignDB(t *testing.T, s *store.Store) *dbutil.Database {
	t.Helper()
	db, err := s.Foreign()
	if err != nil {
		t.Fatal(err)
	}
	return db
}

const putAccount = `INSERT INTO crypto_account (account_id, device_id, shared, sync_token, account) VALUES ($1, $2, true, '', $3)`

func accounts(t *testing.T, db *dbutil.Database) (n int) {
	t.Helper()
	if err := db.QueryRow(ctx(), `SELECT COUNT(*) FROM crypto_account`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

var foreignChecks = []check{
	{"Foreign_InAJob_IsPartOfIt", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		put := func(tx *store.Tx, name string) error {
			_, err := f.Exec(tx.Context(ctx()), putAccount, name, "DEVICE", []byte("pickled"))
			return err
		}
		failed := errors.New("the job does not want it")
		if err := fails(s, func(tx *store.Tx) error { return errors.Join(put(tx, "a"), failed) }); !errors.Is(err, failed) {
			t.Fatal(err)
		}
		expect(t, "after a job that failed", accounts(t, f), 0)
		Commit(t, s, func(tx *store.Tx) error {
			if err := put(tx, "a"); err != nil {
				return err
			}
			var seen int
			err := f.QueryRow(tx.Context(ctx()), `SELECT COUNT(*) FROM crypto_account`).Scan(&seen)
			expect(t, "what the job sees", seen, 1)
			return err
		})
		expect(t, "after a job", accounts(t, f), 1)
	}},
	{"DropKeysSharedWith_ManyUsers_DropsThoseOfTheirRoomsOnly", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		var users []string
		Commit(t, s, func(tx *store.Tx) (err error) {
			for n := range 20 { // more than are looked for at once
				user, room := fmt.Sprint("@", n, ":x"), fmt.Sprint("!", n)
				users = append(users, user)
				membership := []string{"join", "invite"}[n%2]
				err = errors.Join(err, tx.SetMember(room, user, membership), tx.SetMember("!left", user, "leave"), tx.SetMember("!others", "@other:x", "join"))
			}
			return err
		})
		var rows [][]any
		for n := range users {
			rows = append(rows, []any{putSending, "@bot:x/D", fmt.Sprint("!", n), longID(fmt.Sprint("n", n)), []byte("pickled"), start})
		}
		rows = append(rows, []any{putSending, "@bot:x/D", "!left", longID("left"), []byte("pickled"), start},
			[]any{putSending, "@bot:x/D", "!others", longID("others"), []byte("pickled"), start})
		putAll(t, s, f, rows...)
		Commit(t, s, func(tx *store.Tx) error { return tx.DropKeysSharedWith() })
		if left := keyNames(t, f, sending); len(left) != 22 {
			t.Fatalf("%d are left, and nobody was named", len(left))
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.DropKeysSharedWith(users[1:]...) })
		expect(t, "left", fmt.Sprint(keyNames(t, f, sending)), "[left n0 others]")
	}},
	{"Foreign_WithoutAJob_OnlyReads", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		_, err := f.Exec(ctx(), putAccount, "a", "DEVICE", []byte("pickled"))
		if !errors.Is(err, store.ErrNoTx) {
			t.Errorf("Exec: %v", err)
		}
		var name string
		if err = f.QueryRow(ctx(), putAccount+` RETURNING account_id`, "a", "DEVICE", []byte("pickled")).Scan(&name); !errors.Is(err, store.ErrNoTx) {
			t.Errorf("QueryRow: %v", err)
		}
		if _, err = f.Query(ctx(), putAccount+` RETURNING account_id`, "a", "DEVICE", []byte("pickled")); !errors.Is(err, store.ErrNoTx) {
			t.Errorf("Query: %v", err)
		}
		if tx, err := f.BeginTx(ctx(), nil); err == nil {
			_ = tx.Rollback()
			t.Error("a transaction besides the writer's was begun")
		}
		expect(t, "accounts", accounts(t, f), 0)
	}},
	{"Foreign_StatementThatFails_FailsTheJobThatLooksAway", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		err := fails(s, func(tx *store.Tx) error {
			_, _ = f.Exec(tx.Context(ctx()), putAccount, "a", "DEVICE", []byte("pickled"))
			_, _ = f.Exec(tx.Context(ctx()), `INSERT INTO crypto_account (account_id) VALUES ($1)`, "b")
			return nil
		})
		if err == nil {
			t.Error("the job succeeded")
		}
		expect(t, "accounts", accounts(t, f), 0)
	}},
	{"Foreign_FailedJob_IsToldToItsMemory", func(t *testing.T, db *database) {
		s := db.open(t)
		undone, done := 0, 0
		Commit(t, s, func(tx *store.Tx) error {
			tx.OnRollback(func() { undone++ })
			return nil
		})
		expect(t, "undone", undone, 0)
		_ = fails(s, func(tx *store.Tx) error {
			tx.OnRollback(func() { undone++ })
			tx.AfterCommit(func() { done++ })
			tx.Fail(errors.New("somebody says no"))
			return nil
		})
		expect(t, "undone", undone, 1)
		expect(t, "done", done, 0)
	}},
	{"Foreign_RowsLeftOpen_DoNotHoldTheWriter", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		for _, name := range []string{"a", "b", "c"} {
			Commit(t, s, func(tx *store.Tx) error {
				_, err := f.Exec(tx.Context(ctx()), putAccount, name, "DEVICE", []byte("pickled"))
				return err
			})
		}
		for range 3 {
			Commit(t, s, func(tx *store.Tx) error {
				rows, err := f.Query(tx.Context(ctx()), `SELECT account_id FROM crypto_account`)
				if err == nil && !rows.Next() {
					err = errors.New("no row")
				}
				return err // and the rows stay open
			})
		}
	}},
	{"Foreign_TimesOfAnyZone_ComeBackAsTheyWere", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		at := time.Date(2026, 3, 4, 23, 30, 5, 600_000_000, time.FixedZone("far", 5*3600+1800))
		const put = `INSERT INTO crypto_olm_session (account_id, session_id, sender_key, session, created_at, last_decrypted, last_encrypted)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`
		Commit(t, s, func(tx *store.Tx) error {
			_, err := f.Exec(tx.Context(ctx()), put, "a", "s", "k", []byte("pickled"), at, &at, at.UTC())
			return err
		})
		shut(t, s)
		f = foreignDB(t, db.open(t))
		var created, decrypted, encrypted time.Time
		err := f.QueryRow(ctx(), `SELECT created_at, last_decrypted, last_encrypted FROM crypto_olm_session`).Scan(&created, &decrypted, &encrypted)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []time.Time{created, decrypted, encrypted} {
			if !got.Equal(at) {
				t.Errorf("got %v, want %v", got, at)
			}
		}
	}},
	{"Foreign_JSONInBytes_IsJSON", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		const put = `INSERT INTO crypto_megolm_inbound_session (account_id, session_id, sender_key, room_id, session, ratchet_safety, forwarding_chains)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`
		Commit(t, s, func(tx *store.Tx) error {
			_, err := f.Exec(tx.Context(ctx()), put, "a", "s", "k", "!r", []byte("pickled"), []byte(`{"next_index":7}`), []byte(`{"bytes":"all the same"}`))
			return err
		})
		get := `SELECT json_extract(ratchet_safety, '$.next_index'), forwarding_chains FROM crypto_megolm_inbound_session`
		if f.Dialect == dbutil.Postgres {
			get = `SELECT CAST(ratchet_safety->>'next_index' AS BIGINT), forwarding_chains FROM crypto_megolm_inbound_session`
		}
		var index int
		var chains []byte
		if err := f.QueryRow(ctx(), get).Scan(&index, &chains); err != nil {
			t.Fatal(err)
		}
		expect(t, "index", index, 7)
		expect(t, "bytes", string(chains), `{"bytes":"all the same"}`)
	}},
}
