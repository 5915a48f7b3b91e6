package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

const (
	putUser   = `INSERT INTO crypto_tracked_user (user_id, devices_outdated) VALUES ($1, false)`
	putDevice = `INSERT INTO crypto_device (user_id, device_id, identity_key, signing_key, trust, deleted, name) VALUES ($1, $2, $3, $3, 0, $4, '')`
	putKey    = `INSERT INTO crypto_megolm_inbound_session (account_id, session_id, sender_key, room_id, session, received_at, source_user) VALUES ('@bot:x/D', $1, $2, '!r', 'x', $3, $4)`
	putGhost  = `INSERT INTO ghost (user_id, registered, device_id, device_made, display_name, avatar_url, last_write) VALUES ($1, 0, '', 0, '', '', 0)`
	putOlm    = `INSERT INTO crypto_olm_session (account_id, session_id, sender_key, session, created_at, last_decrypted, last_encrypted) VALUES ('@bot:x/D', $1, $2, 'x', $3, $3, $3)`
)

// putRows runs statements in one commit.
func putRows(t *testing.T, s *store.Store, rows ...[]any) {
	t.Helper()
	keys, err := s.Foreign()
	if err != nil {
		t.Fatal(err)
	}
	storetest.Commit(t, s, func(tx *store.Tx) error {
		for _, row := range rows {
			if _, err := keys.Exec(tx.Context(t.Context()), row[0].(string), row[1:]...); err != nil {
				return err
			}
		}
		return nil
	})
}

// A subquery that PostgreSQL cannot hash it runs for each user: with 20,000 of them and 300,000 members that took minutes, and the reading is given up before.
func TestPrune_UsersAmongManyMembers_AreFoundByPostgreSQLWithoutReadingAllForEach(t *testing.T) {
	uri := storetest.Postgres(t)
	storetest.Open(t, uri, store.Options{})
	db, err := sql.Open("postgres", uri)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, fill := range []string{
		`INSERT INTO crypto_tracked_user SELECT '@user' || n || ':example.org', false FROM generate_series(1, 2000) n`,
		`INSERT INTO member SELECT '!room:example.org', '@member' || n || ':example.org', 'join' FROM generate_series(1, 20000) n`,
		`INSERT INTO crypto_megolm_inbound_session (account_id, session_id, sender_key, room_id, received_at, source_user)
			SELECT '@bot:example.org/D', lpad(n::text, 43, '0'), lpad(n::text, 43, '0'), '!r', now(), '@member' || n || ':example.org' FROM generate_series(1, 20000) n`,
		`ANALYZE`,
	} {
		if _, err := db.Exec(fill); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.Query(`EXPLAIN `+store.ForgettableUsers, time.Now(), 20_000)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "SubPlan") {
			t.Errorf("run for each user, if it is too much for a hash: %s", line)
		}
	}
}

// Lanes wait while a commit runs.
func TestPrune_UsersWithManyDevices_AreForgottenInSmallCommits(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t), store.Options{})
	var rows [][]any
	const users, devices = 60, 100
	for n := range users {
		rows = append(rows, []any{putUser, fmt.Sprint("@", n, ":x")})
		for d := range devices {
			rows = append(rows, []any{putDevice, fmt.Sprint("@", n, ":x"), fmt.Sprint(d), fmt.Sprint(n, "-", d), false})
		}
	}
	putRows(t, s, rows...)
	commits := func() int64 {
		before := store.Commits(s)
		if err := s.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		return store.Commits(s) - before
	}
	many := commits()
	if many -= commits(); many < users*devices/2000 { // without those of a Prune that finds nothing
		t.Errorf("%d devices went in %d commits", users*devices, many)
	}
	var left int
	if err := store.Reader(s).QueryRow(`SELECT (SELECT COUNT(*) FROM crypto_tracked_user) + (SELECT COUNT(*) FROM crypto_device)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d are left; %v", left, err)
	}
}

// It is looked for long before it is done.
func TestPrune_UserOfWhomSomethingComesMeanwhile_IsNotForgotten(t *testing.T) {
	now := time.Now()
	for name, uri := range map[string]string{"SQLite": storetest.SQLite(t), "PostgreSQL": storetest.Postgres(t)} {
		s := storetest.Open(t, uri, store.Options{})
		forget := map[string]func(tx *store.Tx, user string) (int64, error){
			"known":    func(tx *store.Tx, user string) (int64, error) { return tx.ForgetUser(user, now.Add(-time.Hour)) },
			"stranger": (*store.Tx).ForgetStranger,
		}
		for kind, forget := range forget {
			for what, come := range map[string]func(user, key string) []any{
				"a room key": func(user, key string) []any { return []any{putKey, key, key, now, user} },
				"a message":  func(_, key string) []any { return []any{putOlm, key, key, now} },
				"a membership": func(user, _ string) []any {
					return []any{`INSERT INTO member (room, user_id, membership) VALUES ('!r', $1, 'join')`, user}
				},
				"a ghost":   func(user, _ string) []any { return []any{putGhost, user} },
				"an answer": func(user, _ string) []any { return []any{putUser, user} },
				"nothing":   func(user, _ string) []any { return []any{putUser, "@another" + user[1:]} },
			} {
				if kind == "known" && what == "an answer" {
					continue // there is one
				}
				user, key := fmt.Sprintf("@%s %s:x", kind, what), fmt.Sprint(kind, what)
				rows := [][]any{{putDevice, user, "D", key, kind == "stranger"}, come(user, key)}
				if kind == "known" {
					rows = append(rows, []any{putUser, user})
				}
				putRows(t, s, rows...)
				storetest.Commit(t, s, func(tx *store.Tx) error {
					n, err := forget(tx, user)
					if forgotten := n > 0; err == nil && forgotten != (what == "nothing") {
						t.Errorf("%s, %s: %s came: forgotten: %t", name, kind, what, forgotten)
					}
					return err
				})
			}
		}
	}
}

// An answer of the homeserver and a message of a new device count what there is of a user, on the writer. Most have few that are gone.
func TestDeleteGoneDevices_OfWhichThereAreFew_LooksAtNoSession_AndOfManyByAnIndex(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t), store.Options{})
	gone := func(keep int) (queries []string) {
		storetest.Commit(t, s, func(tx *store.Tx) error { return tx.DeleteGoneDevices("@eve:x", keep) })
		for _, query := range store.WriterQueries(t, s) {
			if strings.HasPrefix(query, "SELECT") && strings.Contains(query, "crypto_megolm_inbound_session") {
				queries = append(queries, query)
			}
		}
		return queries
	}
	putRows(t, s, []any{putDevice, "@eve:x", "A", "a", true}, []any{putDevice, "@eve:x", "B", "b", true}, []any{putDevice, "@eve:x", "C", "c", false})
	if queries := gone(2); len(queries) > 0 {
		t.Errorf("two are gone and two may be: %s", queries)
	}
	queries := gone(1)
	if len(queries) != 1 {
		t.Fatalf("one was to go: %s", queries)
	}
	rows, err := store.Reader(s).QueryContext(context.Background(), "EXPLAIN QUERY PLAN "+regexp.MustCompile(`\$\d+|\?\d*`).ReplaceAllString(queries[0], "NULL"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	covered := false
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		covered = covered || strings.Contains(detail, "COVERING INDEX trestle_inbound_session_maker")
	}
	if !covered {
		t.Error("it reads all sessions of each device")
	}
}
