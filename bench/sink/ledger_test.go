package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"

	"maunium.net/go/mautrix/id"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), "sqlite:"+filepath.Join(t.TempDir(), "x.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func event(room string, n int64) *appservice.Event {
	return &appservice.Event{
		Kind: store.KindPDU, Lane: "room:" + room, RoomID: id.RoomID(room), ID: id.EventID(fmt.Sprintf("$%s%d", room, n)),
		Raw: json.RawMessage(fmt.Sprintf(`{"content":{"n":%d}}`, n)),
	}
}

// handle gives events to the handler, as a worker does with some of one lane.
func handle(t *testing.T, h *handler, events ...*appservice.Event) (effects []appservice.Effect) {
	t.Helper()
	for _, ev := range events {
		e, err := h.HandleEvent(context.Background(), ev)
		if err != nil {
			t.Fatal(err)
		}
		effects = append(effects, e...)
	}
	return effects
}

func commit(s *store.Store, effects []appservice.Effect, end error) error {
	return s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
		for _, effect := range effects {
			if err := effect(tx); err != nil {
				return err
			}
		}
		return end
	})
}

func mustCommit(t *testing.T, s *store.Store, effects []appservice.Effect) {
	t.Helper()
	if err := commit(s, effects, nil); err != nil {
		t.Fatal(err)
	}
}

func wantCount(t *testing.T, s *store.Store, want counts) {
	t.Helper()
	got, err := count(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("the count is %+v, not %+v", got, want)
	}
}

func TestCount_EventsOnceAndInOrder(t *testing.T) {
	s, h := openStore(t), newHandler(false, false)
	mustCommit(t, s, handle(t, h, event("!a", 1), event("!a", 2), event("!a", 3)))
	mustCommit(t, s, handle(t, h, event("!b", 1)))
	mustCommit(t, s, handle(t, h, event("!a", 4), event("!a", 9)))
	wantCount(t, s, counts{Events: 6, Unique: 6})
	if h.handled.Load() != 6 || len(h.lanes) != 0 {
		t.Fatalf("%d handled, %d lanes open", h.handled.Load(), len(h.lanes))
	}
}

func TestCount_TellsDoublingDisorderAndDeadLetters(t *testing.T) {
	s, h := openStore(t), newHandler(false, false)
	mustCommit(t, s, handle(t, h, event("!a", 1), event("!a", 2)))
	mustCommit(t, s, handle(t, h, event("!a", 2))) // doubled, and not greater than the one before
	mustCommit(t, s, handle(t, h, event("!b", 7)))
	mustCommit(t, s, handle(t, h, event("!b", 5), event("!b", 8))) // disorder between commits
	mustCommit(t, s, handle(t, h, event("!c", 2), event("!c", 1))) // disorder within one
	mustCommit(t, s, []appservice.Effect{func(tx *store.Tx) error {
		return tx.Bury(&store.DeadLetter{Kind: "pdu", Cause: "for the test"})
	}})
	wantCount(t, s, counts{Events: 8, Unique: 7, OutOfOrder: 3, Dead: 1})
}

func TestCount_WhatWasRolledBackAndHandledAgainCountsOnce(t *testing.T) {
	s, h := openStore(t), newHandler(false, false)
	effects := handle(t, h, event("!a", 1), event("!a", 2))
	if err := commit(s, effects, fmt.Errorf("for the test")); err == nil {
		t.Fatal("the commit did not fail")
	}
	wantCount(t, s, counts{})
	mustCommit(t, s, effects) // the same effects once more
	wantCount(t, s, counts{Events: 2, Unique: 2})

	if err := commit(s, handle(t, h, event("!a", 3), event("!a", 4)), fmt.Errorf("for the test")); err == nil {
		t.Fatal("the commit did not fail")
	}
	mustCommit(t, s, handle(t, h, event("!a", 3), event("!a", 4))) // the handler once more
	wantCount(t, s, counts{Events: 4, Unique: 4})
}

func TestCount_AnEventWhoseEffectsAreLostIsMissing(t *testing.T) {
	s, h := openStore(t), newHandler(false, false)
	effects := handle(t, h, event("!a", 1), event("!a", 2))
	mustCommit(t, s, effects[:1])
	wantCount(t, s, counts{})
}

func TestReadRow_RefusesWhatItDidNotWrite(t *testing.T) {
	for _, lane := range []string{"", "!a", "!a ", "!a AAAA", "room:!a x"} {
		if _, _, err := readRow(lane); err == nil {
			t.Errorf("%q was read", lane)
		}
	}
}

func TestNumber_IsContentNAndNoOther(t *testing.T) {
	for raw, want := range map[string]int64{
		`{"n":1,"content":{"a":{"n":2},"n":3,"b":4},"x":5}`: 3,
		`{ "content" : { "n" : 12345678 } }`:                12345678,
		`{"content":{"n":99999999999999999999}}`:            0,
		`{"content":{}}`:                                    0,
		`{"content":{"n":"7"}}`:                             0,
		`{"content":[1]}`:                                   0,
		`{"content":{"n":1.5}}`:                             0,
		`{"n":1}`:                                           0,
		`{}`:                                                0,
		`[]`:                                                0,
	} {
		if n := number([]byte(raw)); n != want {
			t.Errorf("%s: %d", raw, n)
		}
	}
	for _, raw := range []string{"", "{", `{"a":`, `{"content":{"n"`} {
		if n := number([]byte(raw)); n != 0 {
			t.Errorf("%s: %d", raw, n)
		}
	}
}

func TestLedger_RoomIDWithSpaces_IsReadBack(t *testing.T) {
	s := openStore(t)
	err := s.Commit(t.Context(), s.Epoch(), func(tx *store.Tx) error { return writeRow(tx, "!a b c:hs", []entry{newEntry("$1", 1)}) })
	if err != nil {
		t.Fatal(err)
	}
	if c, err := count(t.Context(), s); err != nil || c.Events != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}
