package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

var retentionChecks = []check{
	{"Prune_DeletesWhatIsOldAndNothingElse", func(t *testing.T, db *database) {
		const day = 24 * time.Hour
		s := db.open(t)
		var dead store.DeadLetter
		expiring := store.Media{Server: "x", MediaID: "y", Expires: start.Add(day)}
		lasting := store.Media{Server: "x", MediaID: "z"}
		Commit(t, s, func(tx *store.Tx) error {
			_, err := tx.Enqueue(&store.Outgoing{Lane: "#c", Key: "r"})
			for i := range 2300 {
				err = errors.Join(err, tx.PutMessage(&store.Message{Channel: "#c", RemoteID: fmt.Sprint(i), Event: "$e"}))
			}
			return errors.Join(err, tx.Bury(&dead), tx.AddMedia(&expiring), tx.AddMedia(&lasting))
		})
		for _, at := range []struct {
			after                            time.Duration
			remote, dead, expiring, messages bool
		}{
			{29 * day, true, true, true, true},
			{30*day + time.Hour, false, true, true, true},
			{32 * day, false, true, false, true},
			{91 * day, false, false, false, true},
			{366 * day, false, false, false, false},
		} {
			shut(t, s)
			db.now = start.Add(at.after)
			s = db.open(t)
			if err := s.Prune(ctx()); err != nil {
				t.Fatal(err)
			}
			_, deadErr := s.DeadLetter(ctx(), dead.ID)
			_, expiringErr := s.Media(ctx(), expiring.ID)
			messages, err := s.MessagesByEvent(ctx(), "$e")
			if err != nil {
				t.Fatal(err)
			}
			known := false
			_ = s.Commit(ctx(), s.Epoch(), func(tx *store.Tx) error {
				fresh, err := tx.Enqueue(&store.Outgoing{Lane: "#c", Key: "r"})
				if err != nil {
					t.Error(err)
				}
				known = !fresh
				return errors.New("only looking")
			})
			expect(t, fmt.Sprint("remote key is known after ", at.after), known, at.remote)
			expect(t, fmt.Sprint("dead letter is there after ", at.after), deadErr == nil, at.dead)
			expect(t, fmt.Sprint("expired media is there after ", at.after), expiringErr == nil, at.expiring)
			expect(t, fmt.Sprint("messages after ", at.after), len(messages) == 2300, at.messages)
			if !at.messages {
				expect(t, "messages", len(messages), 0)
			}
			if _, err = s.Media(ctx(), lasting.ID); err != nil {
				t.Errorf("media that does not expire: %v", err)
			}
		}
		n := 0
		if err := s.OutgoingBacklog(ctx(), func(string, int64) error { n++; return nil }); err != nil || n != 1 {
			t.Errorf("the outbox has %d rows, %v: retention must not touch what waits", n, err)
		}
	}},
	{"Prune_OfWhatWaitsAndOfKeysThatAreKnown_NeverGoesByAge", func(t *testing.T, db *database) {
		s := db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$waits"), pdu("!a", "$too")))
		done := ingest(t, s, transaction(pdu("!b", "$done")))
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!b", done[0].Refs[0]) })
		for _, after := range []time.Duration{7 * 24 * time.Hour, 5 * 365 * 24 * time.Hour} {
			shut(t, s)
			db.now = start.Add(after)
			s = db.open(t)
			if err := s.Prune(ctx()); err != nil {
				t.Fatal(err)
			}
			expect(t, fmt.Sprint("backlog after ", after), keys(t, s, backlog(t, s)), "!a: $waits $too")
			again := ingest(t, s, transaction(pdu("!a", "$waits"), pdu("!b", "$done")))
			expect(t, fmt.Sprint("events taken twice after ", after), len(again), 0)
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[1]) })
		expect(t, "rows in the end", rows(t, s).Rows, int64(0))
	}},
}
