package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// talk is a transaction of so many events, much alike as events are.
func talk(first, events int) *Transaction {
	t := &Transaction{ID: fmt.Sprint(first)}
	for i := range events {
		key := fmt.Sprintf("$%043d", first+i)
		raw := fmt.Sprintf(`{"type":"m.room.message","room_id":"!r%d:x","sender":"@a:x","content":{"msgtype":"m.text","body":"text %d"},"event_id":"%s"}`, i, i, key)
		t.Elements = append(t.Elements, Element{Kind: KindPDU, Lane: fmt.Sprint("!r", i), Key: key, Raw: []byte(raw)})
	}
	return t
}

func TestInbox_EventsThatAreAlike_TakeLessRoomAndAreReadAsTheyCame(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "store.db")
	random := make([]byte, 20_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	sent := []*Transaction{
		talk(0, 1), talk(100, 100), talk(1000, 3),
		{Elements: []Element{{Kind: KindToDevice, Lane: "d", Raw: random}}},
		{Elements: []Element{{Kind: KindToDevice, Lane: "e", Raw: bytes.Repeat([]byte("long "), 300_000)}}},
		talk(5000, 400),
	}
	open := func() *Store {
		s, err := Open(ctx, "sqlite:"+path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	var refs [][]LaneRefs
	for _, transaction := range sent {
		err := s.Commit(ctx, s.Epoch(), func(tx *Tx) error {
			lanes, err := tx.Ingest(transaction)
			refs = append(refs, lanes)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open() // so that nothing is in memory
	defer s.Close()
	for i, transaction := range sent {
		var long, stored int
		for _, lane := range refs[i] {
			for _, ref := range lane.Refs {
				e, err := s.Element(ctx, ref)
				if want := transaction.Elements[ref.Pos]; err != nil || !bytes.Equal(e.Raw, want.Raw) || e.Key != want.Key || e.Lane != want.Lane {
					t.Fatalf("transaction %d: %.80q %v, want %.80q", i, e.Raw, err, want.Raw)
				}
				long += len(e.Raw)
			}
		}
		if err := s.one(ctx, []any{&stored}, `SELECT length(body) FROM inbox WHERE seq = $1`, refs[i][0].Refs[0].Seq); err != nil {
			t.Fatal(err)
		}
		if alike := long >= packFrom && i != 3; alike != (stored <= long/2) || stored > long {
			t.Errorf("transaction %d of %d bytes takes %d", i, long, stored)
		}
	}
}

func TestInbox_DamagedPackedBody_IsAnErrorAndNothingElse(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "store.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ref Ref
	err = s.Commit(ctx, s.Epoch(), func(tx *Tx) error {
		lanes, err := tx.Ingest(talk(0, 100))
		ref = lanes[0].Refs[0]
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{"zeroblob(10)", "body || x'00'", "substr(body, 1, 900)", "x''", "x'ffffffff7f'"} {
		err := s.Commit(ctx, s.Epoch(), func(tx *Tx) error {
			_, err := tx.exec(`UPDATE inbox SET body = ` + damage)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.cache.drop(ref.Seq)
		if _, err := s.Element(ctx, ref); !errors.Is(err, errIndex) || !strings.Contains(err.Error(), "inbox row 1") {
			t.Errorf("%s: %v", damage, err)
		}
	}
}
