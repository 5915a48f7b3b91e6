package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// park takes events in and parks them, each in the commit that ends it.
func park(t *testing.T, s *store.Store, room, session string, until time.Time, ids ...string) {
	t.Helper()
	for _, id := range ids {
		lanes := ingest(t, s, transaction(pdu(room, id)))
		Commit(t, s, func(tx *store.Tx) error {
			p := store.Parked{Room: room, Session: session, Until: until, Element: pdu(room, id)}
			return errors.Join(tx.Park(&p), tx.Finish(room, lanes[0].Refs[0]))
		})
	}
}

func parkedCount(t *testing.T, s *store.Store) int64 {
	t.Helper()
	d, err := s.Depth(ctx())
	if err != nil {
		t.Fatal(err)
	}
	return d.Parked
}

var parkedChecks = []check{
	{"Park_KeyComes_WaitsInTheInboxInOrderAndOnce", func(t *testing.T, db *database) {
		s := db.open(t)
		until := start.Add(time.Hour)
		park(t, s, "!a", "s1", until, "$1", "$2", "$3")
		park(t, s, "!a", "s2", until, "$4")
		park(t, s, "!b", "s1", until, "$5")
		shut(t, s)
		s = db.open(t)
		expect(t, "waiting", waiting(t, s), []string(nil))
		expect(t, "parked", parkedCount(t, s), int64(5))
		Commit(t, s, func(tx *store.Tx) error {
			lanes, err := tx.Unpark("!a", "s1")
			if len(lanes) != 1 || lanes[0].Lane != "!a" || len(lanes[0].Refs) != 3 {
				t.Errorf("lanes are %+v", lanes)
			}
			return err
		})
		for range 2 {
			expect(t, "waiting", waiting(t, s), []string{"!a $1", "!a $2", "!a $3"})
			expect(t, "parked", parkedCount(t, s), int64(2))
			// The homeserver's own repetition is still one, of what is parked as well.
			expect(t, "taken in again", len(ingest(t, s, transaction(pdu("!a", "$1"), pdu("!a", "$4")))), 0)
			Commit(t, s, func(tx *store.Tx) error {
				lanes, err := tx.Unpark("!a", "s1")
				expect(t, "lanes", len(lanes), 0)
				return err
			})
			shut(t, s)
			s = db.open(t)
		}
	}},
	{"Park_JobOfTheKeyFails_StaysParked", func(t *testing.T, db *database) {
		s := db.open(t)
		park(t, s, "!a", "s1", start.Add(time.Hour), "$1")
		no := errors.New("no")
		expectError(t, "Commit", fails(s, func(tx *store.Tx) error {
			_, err := tx.Unpark("!a", "s1")
			return errors.Join(err, no)
		}), no)
		expect(t, "parked", parkedCount(t, s), int64(1))
		expect(t, "waiting", waiting(t, s), []string(nil))
	}},
	{"Overdue_TimeIsOver_GivesTheOldestAndForgetsThem", func(t *testing.T, db *database) {
		s := db.open(t)
		if first, err := s.ParkedUntil(ctx()); err != nil || !first.IsZero() {
			t.Errorf("the first is overdue at %v (%v), with nothing parked", first, err)
		}
		for i := range 5 {
			park(t, s, "!a", fmt.Sprint(i), start.Add(time.Duration(i)*time.Minute), fmt.Sprint("$", i))
		}
		if first, err := s.ParkedUntil(ctx()); err != nil || !first.Equal(start) {
			t.Errorf("the first is overdue at %v (%v), want %v", first, err, start)
		}
		shut(t, s)
		db.now = start.Add(2 * time.Minute)
		s = db.open(t)
		for _, want := range [][]string{{"$0", "$1"}, {"$2"}, nil} {
			var got []string
			list, err := s.Overdue(ctx(), 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				e := pdu("!a", p.Key)
				e.Again = true
				expect(t, "element", p.Element, e)
				got = append(got, p.Key)
				Commit(t, s, func(tx *store.Tx) error { return tx.Unparked(p.ID) })
				expectError(t, "ending the wait again", fails(s, func(tx *store.Tx) error { return tx.Unparked(p.ID) }), store.ErrNotFound)
			}
			expect(t, "overdue", got, want)
		}
		expect(t, "parked", parkedCount(t, s), int64(2))
	}},
	{"Park_TextOfAnyBytes_ComesBack", func(t *testing.T, db *database) {
		s := db.open(t)
		for i, text := range odd {
			p := store.Parked{Room: text, Session: text, Until: start, Element: store.Element{Kind: store.KindPDU, Lane: text, Key: fmt.Sprint(text, i), Raw: []byte(text)}}
			Commit(t, s, func(tx *store.Tx) error { return tx.Park(&p) })
			p.Again = true
			list, err := s.Overdue(ctx(), 10)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "overdue", list, []store.Parked{p})
			Commit(t, s, func(tx *store.Tx) error { return tx.Unparked(p.ID) })
		}
	}},
	{"OutgoingPayload_IsWhatTheRowSaysFromThenOn", func(t *testing.T, db *database) {
		s := db.open(t)
		row := &store.Outgoing{Lane: "!a", Payload: []byte("a")}
		Commit(t, s, func(tx *store.Tx) error {
			_, err := tx.Enqueue(row)
			return err
		})
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingPayload(row.ID, []byte("b")) })
		shut(t, s)
		got, err := db.open(t).Outgoing(ctx(), row.ID)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "payload", string(got.Payload), "b")
	}},
	{"OutgoingSealed_IsWhatTheRowHasFromThenOn", func(t *testing.T, db *database) {
		s := db.open(t)
		rows := []*store.Outgoing{{Lane: "!a", Payload: []byte("a")}, {Lane: "!a", Payload: []byte("b")}}
		Commit(t, s, func(tx *store.Tx) error {
			for i, row := range rows {
				if _, err := tx.Enqueue(row); err != nil {
					return err
				}
				if err := tx.OutgoingSealed(row.ID, []byte{0, 1, byte(i)}, i == 0); err != nil {
					return err
				}
			}
			return nil
		})
		shut(t, s)
		s = db.open(t)
		for i, row := range rows {
			got, err := s.Outgoing(ctx(), row.ID)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "ciphertext", got.Sealed, []byte{0, 1, byte(i)})
			expect(t, "payload", string(got.Payload), string(row.Payload))
			expect(t, "doubt", got.Doubt, i == 0)
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingDone(rows[0].ID) })
		expectError(t, "sealing what is done", fails(s, func(tx *store.Tx) error {
			return tx.OutgoingSealed(rows[0].ID, []byte{1}, true)
		}), store.ErrNotFound)
	}},
}
