package store_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// Commits wait while the writer reads a whole table. The notes of who was given a key are the largest of keys, the hashes of Olm messages the next.
func TestPrune_NotesOfWhoWasGivenAKeyAndHashesOfMessages_AreLookedForBesideTheWriterAndAllGo(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t), store.Options{})
	keys, err := s.Foreign()
	if err != nil {
		t.Fatal(err)
	}
	const many = 2500 // more than one commit deletes
	storetest.Commit(t, s, func(tx *store.Tx) error {
		for n := range many {
			_, err := keys.Exec(tx.Context(t.Context()), `INSERT INTO crypto_megolm_outbound_session_shared (user_id, identity_key, session_id) VALUES ($1, 'key', $2)`,
				fmt.Sprint("@", n, ":x"), fmt.Sprint([]string{"old", "inuse"}[n%2]))
			if err != nil {
				return err
			}
		}
		_, err := keys.Exec(tx.Context(t.Context()), `INSERT INTO crypto_account (account_id, device_id, shared, sync_token, account) VALUES ('@bot:x/D', 'D', true, '', 'x')`)
		for n := 0; n < many && err == nil; n++ {
			_, err = keys.Exec(tx.Context(t.Context()), `INSERT INTO crypto_olm_message_hash (account_id, received_at, message_hash) VALUES ('@bot:x/D', $1, $2)`, n%2, []byte(fmt.Sprint(n)))
		}
		if err != nil {
			return err
		}
		_, err = keys.Exec(tx.Context(t.Context()), `INSERT INTO crypto_megolm_outbound_session
			(account_id, room_id, session_id, session, shared, max_messages, message_count, max_age, created_at, last_used) VALUES ('@bot:x/D', '!r', 'inuse', 'x', true, 1, 1, 1, $1, $1)`, time.Now())
		return err
	})
	if err := s.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left, inUse int
	if err := keys.QueryRow(t.Context(), `SELECT COUNT(*), SUM(session_id = 'inuse') FROM crypto_megolm_outbound_session_shared`).Scan(&left, &inUse); err != nil || left != many/2 || inUse != left {
		t.Errorf("%d notes are left, of which %d are of the key in use; %v", left, inUse, err)
	}
	var hashes int
	if err := keys.QueryRow(t.Context(), `SELECT COUNT(*) FROM crypto_olm_message_hash`).Scan(&hashes); err != nil || hashes != 0 {
		t.Errorf("%d hashes are left; %v", hashes, err)
	}
	looked := map[string]bool{}
	for _, query := range store.WriterQueries(t, s) {
		table := regexp.MustCompile(`^DELETE FROM (crypto_megolm_outbound_session_shared|crypto_olm_message_hash)`).FindString(query)
		if table == "" {
			continue
		}
		looked[table] = true
		rows, err := store.Reader(s).QueryContext(context.Background(), "EXPLAIN QUERY PLAN "+regexp.MustCompile(`\$\d+|\?\d*`).ReplaceAllString(query, "NULL"))
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(detail, "SCAN") {
				t.Errorf("the writer reads all: %s of %s", detail, query)
			}
		}
	}
	if len(looked) != 2 {
		t.Error("the writer has not deleted anything, and this shows nothing")
	}
}
