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
		again := pdu(room, id)
		again.Again = true // it may have been parked before
		lanes := ingest(t, s, transaction(again))
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
			lanes, err := tx.Unpark("!a", "s1", "")
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
				lanes, err := tx.Unpark("!a", "s1", "")
				expect(t, "lanes", len(lanes), 0)
				return err
			})
			shut(t, s)
			s = db.open(t)
		}
	}},
	{"Unpark_KeyOfOneSender_TakesUpHisAlone", func(t *testing.T, db *database) {
		s := db.open(t)
		for _, sender := range []string{"@ann:x", "@bob:x", ""} { // "" was parked by an older version
			lanes := ingest(t, s, transaction(pdu("!a", "$"+sender)))
			Commit(t, s, func(tx *store.Tx) error {
				p := store.Parked{Room: "!a", Session: "s1", Sender: sender, Until: start.Add(time.Hour), Element: pdu("!a", "$"+sender)}
				return errors.Join(tx.Park(&p), tx.Finish("!a", lanes[0].Refs[0]))
			})
		}
		unpark := func(sender string) {
			Commit(t, s, func(tx *store.Tx) error {
				_, err := tx.Unpark("!a", "s1", sender)
				return err
			})
		}
		unpark("@ann:x")
		expect(t, "waiting", waiting(t, s), []string{"!a $@ann:x", "!a $"})
		unpark("") // somebody who may speak for all
		expect(t, "waiting", waiting(t, s), []string{"!a $@ann:x", "!a $", "!a $@bob:x"})
	}},
	{"Park_WhatWasParkedBefore_WaitsNoLongerThanItWasToWaitThen", func(t *testing.T, db *database) {
		s := db.open(t)
		overdue := func(want ...string) (list []store.Parked) {
			list, err := s.Overdue(ctx(), 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range list {
				got = append(got, p.Key)
			}
			expect(t, "overdue", got, want)
			return list
		}
		for n := range 3 {
			park(t, s, "!a", "s1", start.Add(time.Duration(n+1)*time.Hour), "$1")
			park(t, s, "!a", "s1", start.Add(time.Duration(n+1)*time.Hour), fmt.Sprint("$other", n))
			Commit(t, s, func(tx *store.Tx) error {
				lanes, err := tx.Unpark("!a", "s1", "")
				for _, ref := range lanes[0].Refs {
					err = errors.Join(err, tx.Finish("!a", ref))
				}
				return err
			})
		}
		park(t, s, "!a", "s1", start.Add(9*time.Hour), "$1", "$2")
		shut(t, s)
		db.now = start.Add(time.Hour)
		s = db.open(t)
		for _, p := range overdue("$1") {
			Commit(t, s, func(tx *store.Tx) error { return tx.Unparked(p.ID) })
		}
		park(t, s, "!a", "s1", start.Add(2*time.Hour), "$1") // out of the dead letters
		overdue()
		shut(t, s)
		db.now = start.Add(12 * time.Hour)
		s = db.open(t)
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		expect(t, "notes", len(keyNames(t, foreignDB(t, s), `SELECT event FROM unparked`)), 0)
	}},
	{"WithdrawParked_EventThatIsTakenBack_IsGoneAlone", func(t *testing.T, db *database) {
		s := db.open(t)
		park(t, s, "!a", "s1", start.Add(time.Hour), "$1", "$2")
		park(t, s, "!b", "s1", start.Add(time.Hour), "$3")
		for _, gone := range [][2]string{{"!a", "$1"}, {"!a", "$3"}, {"!a", "$4"}} {
			Commit(t, s, func(tx *store.Tx) error { return tx.WithdrawParked(gone[0], gone[1]) })
		}
		expect(t, "parked", parkedCount(t, s), int64(2))
		Commit(t, s, func(tx *store.Tx) error {
			_, err := tx.Unpark("!a", "s1", "")
			return err
		})
		expect(t, "waiting", waiting(t, s), []string{"!a $2"})
	}},
	{"Park_JobOfTheKeyFails_StaysParked", func(t *testing.T, db *database) {
		s := db.open(t)
		park(t, s, "!a", "s1", start.Add(time.Hour), "$1")
		no := errors.New("no")
		expectError(t, "Commit", fails(s, func(tx *store.Tx) error {
			_, err := tx.Unpark("!a", "s1", "")
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
