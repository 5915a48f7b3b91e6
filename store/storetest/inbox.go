package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// pdu makes an event of a room. Its key is in its bytes, as an event's is.
func pdu(room, id string) store.Element {
	return store.Element{Kind: store.KindPDU, Lane: room, Key: id, Raw: []byte(`{"event_id":"` + id + `","room_id":"` + room + `"}`)}
}

func transaction(elements ...store.Element) *store.Transaction {
	return &store.Transaction{ID: "t", Received: start, Elements: elements}
}

func ingest(t *testing.T, s *store.Store, tr *store.Transaction) (lanes []store.LaneRefs) {
	t.Helper()
	Commit(t, s, func(tx *store.Tx) (err error) {
		lanes, err = tx.Ingest(tr)
		return err
	})
	return lanes
}

// keys reads the elements of lanes: "lane: key key; lane: key".
func keys(t *testing.T, s *store.Store, lanes []store.LaneRefs) string {
	t.Helper()
	var parts []string
	for _, l := range lanes {
		part := l.Lane + ":"
		for i, ref := range l.Refs {
			e, err := s.Element(ctx(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if e.Lane != l.Lane {
				t.Errorf("element of lane %q came with lane %q", e.Lane, l.Lane)
			}
			if ref.Last != (i == len(l.Refs)-1) {
				t.Errorf("lane %q, element %d of %d: Last is %v", l.Lane, i, len(l.Refs), ref.Last)
			}
			part += " " + e.Key
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

func backlog(t *testing.T, s *store.Store) (out []store.LaneRefs) {
	t.Helper()
	err := s.Backlog(ctx(), func(l store.LaneRefs) error {
		out = append(out, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func expectError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func rows(t *testing.T, s *store.Store) store.Stats {
	t.Helper()
	st, err := s.InboxStats(ctx())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

var inboxChecks = []check{
	{"Ingest_GivesEveryLaneItsElementsInOrder", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$2"), pdu("!a", "$3")))
		expect(t, "lanes", keys(t, s, lanes), "!a: $1 $3; !b: $2")
		st := rows(t, s)
		expect(t, "stats", st, store.Stats{Rows: 1, Events: 3, Oldest: start})
	}},
	{"Ingest_ElementsComeBackAsTheyWere", func(t *testing.T, db *database) {
		s := db.open(t)
		in := []store.Element{
			{Kind: store.KindPDU, Lane: "!a", Key: "$1", Raw: []byte(`{"event_id":"$1"}`)},
			{Kind: store.KindPDU, Lane: "!a", Key: "$escaped/", Raw: []byte(`{"event_id":"$escaped\/"}`)},
			{Kind: store.KindToDevice, Lane: "\x00 lane \xff", Key: "t1\x00\xfe hash", Raw: []byte("\x00\xff")},
			{Kind: store.KindKeyCounts, Lane: "", Key: "", Raw: []byte{}},
		}
		check := func(s *store.Store, lanes []store.LaneRefs) {
			n := 0
			for _, l := range lanes {
				for _, ref := range l.Refs {
					e, err := s.Element(ctx(), ref)
					if err != nil {
						t.Fatal(err)
					}
					expect(t, "element", e, in[ref.Pos])
					n++
				}
			}
			expect(t, "number of elements", n, len(in))
		}
		check(s, ingest(t, s, transaction(in...)))
		shut(t, s)
		s = db.open(t)
		check(s, backlog(t, s))
	}},
	{"Ingest_ElementsAreCopied", func(t *testing.T, db *database) {
		s := db.open(t)
		e := pdu("!a", "$1")
		want := string(e.Raw)
		lanes := ingest(t, s, transaction(e))
		clear(e.Raw)
		got, err := s.Element(ctx(), lanes[0].Refs[0])
		if err != nil || string(got.Raw) != want {
			t.Errorf("element is %q, %v", got.Raw, err)
		}
	}},
	{"Ingest_SameTransactionAgain_WritesNothing", func(t *testing.T, db *database) {
		s := db.open(t)
		tr := transaction(pdu("!a", "$1"), pdu("!b", "$2"))
		ingest(t, s, tr)
		expect(t, "second time", len(ingest(t, s, tr)), 0)
		expect(t, "rows", rows(t, s).Rows, int64(1))
		shut(t, s)
		s = db.open(t)
		expect(t, "after a restart", len(ingest(t, s, tr)), 0)
		expect(t, "rows", rows(t, s).Rows, int64(1))
	}},
	{"Ingest_SameIDLargerBody_TakesOnlyNewEvents", func(t *testing.T, db *database) {
		s := db.open(t)
		ingest(t, s, transaction(pdu("!a", "$1")))
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!a", "$2")))
		expect(t, "lanes", keys(t, s, lanes), "!a: $2")
	}},
	{"Ingest_SameEventTwiceInOneTransaction_IsTakenOnce", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1"), pdu("!b", "$1"), pdu("!a", "$1")))
		expect(t, "lanes", keys(t, s, lanes), "!a: $1")
	}},
	{"Ingest_FinishedEventAgain_IsNotTakenAgain", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$1")))
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[0]) })
		shut(t, s)
		s = db.open(t)
		expect(t, "again", len(ingest(t, s, transaction(pdu("!a", "$1")))), 0)
	}},
	{"Ingest_InertElement_IsKnownAndNobodyIsGivenIt", func(t *testing.T, db *database) {
		s := db.open(t)
		inert := pdu("!a", "$1")
		inert.Inert, inert.AtOnce = true, func(*store.Tx) error { return errors.New("something was done about it") }
		expect(t, "lanes", len(ingest(t, s, transaction(inert))), 0)
		expect(t, "rows", rows(t, s).Rows, int64(0))
		expect(t, "later", keys(t, s, ingest(t, s, transaction(pdu("!a", "$1"), pdu("!a", "$2")))), "!a: $2")
		shut(t, s)
		s = db.open(t)
		expect(t, "after a restart", len(ingest(t, s, transaction(pdu("!a", "$1")))), 0)
	}},
	{"Ingest_ElementIsInertAfterAnother_AsSoonAsThatIsKnown", func(t *testing.T, db *database) {
		s := db.open(t)
		older := func(id string) store.Element {
			e := pdu("!a", id)
			e.InertAfter = []string{"$newer", "$newest"}
			return e
		}
		expect(t, "before", keys(t, s, ingest(t, s, transaction(older("$1"), pdu("!a", "$newest")))), "!a: $1 $newest")
		expect(t, "after", keys(t, s, ingest(t, s, transaction(older("$2"), pdu("!a", "$3")))), "!a: $3")
		expect(t, "later", len(ingest(t, s, transaction(pdu("!a", "$2")))), 0)
	}},
	{"Sights_OfKeys_TellWhatWasTakenInBefore", func(t *testing.T, db *database) {
		s := db.open(t)
		sights := func(s *store.Store, before time.Time) (got []store.Sight) {
			Commit(t, s, func(tx *store.Tx) (err error) {
				got, err = tx.Sights(store.KindPDU, []string{"$new", "$1", "$2", "$3"}, before)
				return err
			})
			return got
		}
		at := func(n int, id string) {
			tr := transaction(pdu("!a", id))
			tr.Received = start.Add(time.Duration(n) * time.Minute)
			ingest(t, s, tr)
		}
		at(1, "$1")
		at(3, "$3") // whose commit did not wait
		at(2, "$2")
		for range 2 {
			expect(t, "before the third minute", sights(s, start.Add(3*time.Minute)), []store.Sight{0, store.SeenBefore, store.SeenBefore, store.Seen})
			expect(t, "before the first", sights(s, start), []store.Sight{0, store.Seen, store.Seen, store.Seen})
			Commit(t, s, func(tx *store.Tx) error {
				if last := tx.LastTaken(); !last.Equal(start.Add(2 * time.Minute)) {
					t.Errorf("the last was taken in at %v", last)
				}
				return nil
			})
			shut(t, s)
			s = db.open(t)
		}
		Commit(t, s, func(tx *store.Tx) error {
			if _, err := tx.Ingest(&store.Transaction{Received: start.Add(4 * time.Minute), Elements: []store.Element{pdu("!a", "$new")}}); err != nil {
				return err
			}
			got, err := tx.Sights(store.KindPDU, []string{"$new"}, start.Add(4*time.Minute))
			expect(t, "in the same commit", got, []store.Sight{store.Seen})
			return err
		})
	}},
	{"Ingest_ElementsWithoutKey_AreNeverDuplicates", func(t *testing.T, db *database) {
		s := db.open(t)
		e := store.Element{Kind: store.KindKeyCounts, Lane: "d", Raw: []byte("{}")}
		expect(t, "lanes", len(ingest(t, s, transaction(e, e))[0].Refs), 2)
		expect(t, "lanes", len(ingest(t, s, transaction(e))[0].Refs), 1)
	}},
	{"Ingest_SameKeyOfAnotherKind_IsNew", func(t *testing.T, db *database) {
		s := db.open(t)
		a, b := pdu("!a", "$1"), pdu("!a", "$1")
		b.Kind = store.KindToDevice
		expect(t, "elements", len(ingest(t, s, transaction(a, b))[0].Refs), 2)
	}},
	{"Ingest_MoreThanIsRemembered_NewestAreKnown", func(t *testing.T, db *database) {
		opts := store.Options{SeenEvents: 100}
		s := db.openWith(t, opts)
		one := func(i int) *store.Transaction { return transaction(pdu("!a", fmt.Sprint("$", i))) }
		for i := range 300 {
			ingest(t, s, one(i))
		}
		for _, again := range []bool{false, true} {
			if again {
				shut(t, s)
				s = db.openWith(t, opts)
			}
			for i := 200; i < 300; i++ {
				if len(ingest(t, s, one(i))) > 0 {
					t.Fatalf("event %d of the newest hundred was taken twice (after a restart: %v)", i, again)
				}
			}
		}
		if len(ingest(t, s, one(0))) == 0 {
			t.Error("the oldest event is still known: the memory is not bounded")
		}
	}},
	{"Ingest_RowNumbersGrowAcrossRestarts", func(t *testing.T, db *database) {
		last := int64(0)
		for i := range 3 {
			s := db.open(t)
			lanes := ingest(t, s, transaction(pdu("!a", fmt.Sprint("$", i))))
			ref := lanes[0].Refs[0]
			if ref.Seq <= last {
				t.Errorf("row %d came after row %d", ref.Seq, last)
			}
			last = ref.Seq
			Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", ref) })
			shut(t, s)
		}
	}},
	{"Ingest_DeadParts_AreBuriedOnce", func(t *testing.T, db *database) {
		s := db.open(t)
		tr := transaction(pdu("!a", "$1"))
		tr.Dead = []store.DeadLetter{{Kind: "element", Body: []byte("not an event"), Cause: "no event ID"}}
		ingest(t, s, tr)
		ingest(t, s, tr)
		shut(t, s)
		s = db.open(t)
		ingest(t, s, tr)
		dead, err := s.DeadLetters(ctx(), store.LetterQuery{Bodies: true})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "dead letters", dead, []store.DeadLetter{{ID: 1, Kind: "element", Body: []byte("not an event"), Size: 12, Cause: "no event ID", Created: start}})
	}},
	{"Ingest_EncryptedRooms_AreMarkedInTheSameCommit", func(t *testing.T, db *database) {
		s := db.open(t)
		tr := transaction(pdu("!a", "$1"))
		tr.EncryptedRooms = []string{"!a"}
		err := s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
			if _, err := tx.Ingest(tr); err != nil {
				return err
			}
			return errors.New("no")
		})
		if err == nil {
			t.Fatal("the job's error is lost")
		}
		if encrypted, known, err := s.Encrypted(ctx(), "!a"); encrypted || known || err != nil {
			t.Errorf("after a rollback: %v %v %v", encrypted, known, err)
		}
		ingest(t, s, tr)
		if encrypted, known, err := s.Encrypted(ctx(), "!a"); !encrypted || !known || err != nil {
			t.Errorf("after the commit: %v %v %v", encrypted, known, err)
		}
	}},
	{"Ingest_RolledBack_IsNotRemembered", func(t *testing.T, db *database) {
		s := db.open(t)
		no := errors.New("no")
		err := s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
			if _, err := tx.Ingest(transaction(pdu("!a", "$1"))); err != nil {
				return err
			}
			return no
		})
		expectError(t, "the job", err, no)
		expect(t, "rows", rows(t, s).Rows, int64(0))
		lanes := ingest(t, s, transaction(pdu("!a", "$1")))
		expect(t, "lanes", keys(t, s, lanes), "!a: $1")
	}},
	{"Element_OfFinishedRow_IsNotFound", func(t *testing.T, db *database) {
		s := db.open(t)
		ref := ingest(t, s, transaction(pdu("!a", "$1")))[0].Refs[0]
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", ref) })
		_, err := s.Element(ctx(), ref)
		expectError(t, "Element", err, store.ErrNotFound)
		_, err = s.Element(ctx(), store.Ref{Seq: 1 << 40})
		expectError(t, "Element of no row", err, store.ErrNotFound)
	}},
	{"Element_LargerThanTheCache_IsRead", func(t *testing.T, db *database) {
		s := db.open(t)
		big := store.Element{Kind: store.KindPDU, Lane: "!a", Key: "$1", Raw: []byte(strings.Repeat("x", 20<<20))}
		small := pdu("!a", "$2")
		first := ingest(t, s, transaction(big, small))
		second := ingest(t, s, transaction(pdu("!b", "$3")))
		for range 2 {
			expect(t, "first", keys(t, s, first), "!a: $1 $2")
			expect(t, "second", keys(t, s, second), "!b: $3")
		}
	}},
}
