package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// known is what the store says of !r and @u.
func known(t *testing.T, s *store.Store) string {
	t.Helper()
	encrypted, known, err := s.Encrypted(context.Background(), "!r")
	membership, memberErr := s.Member(context.Background(), "!r", "@u")
	if err != nil || memberErr != nil {
		t.Fatal(err, memberErr)
	}
	switch {
	case encrypted:
		return membership + " encrypted"
	case known:
		return membership + " plain"
	}
	return membership + " unknown"
}

func TestRoomMemory_WhateverChangesARoom_IsReadAfterItsCommit(t *testing.T) {
	read := func(tx *store.Tx) error { return tx.BeginRoom("!r", nil) }
	for _, c := range []struct {
		name          string
		first, change func(tx *store.Tx) error
		before, after string
	}{
		{"SetMember", nil, func(tx *store.Tx) error { return tx.SetMember("!r", "@u", "join") }, " unknown", "join unknown"},
		{"SetMember of nobody", func(tx *store.Tx) error { return tx.SetMember("!r", "@u", "join") },
			func(tx *store.Tx) error { return tx.SetMember("!r", "@u", "") }, "join unknown", " unknown"},
		{"SetRoomMember", read, func(tx *store.Tx) error { return tx.SetRoomMember("!r", "@u", "invite") }, " unknown", "invite unknown"},
		{"BeginRoom", func(tx *store.Tx) error { return tx.SetMember("!r", "@u", "join") }, read, "join unknown", " unknown"},
		{"ReadRoom", read, func(tx *store.Tx) error { return tx.ReadRoom("!r", map[string]string{"@u": "join"}, nil, true) }, " unknown", "join unknown"},
		{"LeaveRoom", func(tx *store.Tx) error {
			return errors.Join(read(tx), tx.SetMember("!r", "@u", "join"))
		}, func(tx *store.Tx) error { return tx.LeaveRoom("!r", "@bot") }, "join unknown", " unknown"},
		{"SetEncrypted", func(tx *store.Tx) error { return tx.SetEncrypted("!r", false) },
			func(tx *store.Tx) error { return tx.SetEncrypted("!r", true) }, " plain", " encrypted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := storetest.Open(t, storetest.SQLite(t), store.Options{})
			if c.first != nil {
				storetest.Commit(t, s, c.first)
			}
			if is := known(t, s); is != c.before {
				t.Fatalf("before it is %q", is)
			}
			failed := s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error { return errors.Join(c.change(tx), errTest) })
			if is := known(t, s); is != c.before || !errors.Is(failed, errTest) {
				t.Errorf("after a job that failed (%v) it is %q", failed, is)
			}
			storetest.Commit(t, s, func(tx *store.Tx) error {
				err := c.change(tx)
				if is := known(t, s); is != c.before { // as anybody may ask meanwhile
					t.Errorf("before the change is durable it is %q", is)
				}
				return err
			})
			if is := known(t, s); is != c.after {
				t.Errorf("after the change it is %q", is)
			}
		})
	}
}

func TestRoomMemory_AChangeThatIsUndone_LeavesTheRoomToBeRemembered(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t), store.Options{})
	_ = s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error { return errors.Join(tx.SetMember("!r", "@u", "join"), errTest) })
	if known(t, s); !store.Remembers(s, "!r", "@u") {
		t.Error("what was read after the failure is not remembered")
	}
}

// Several processes may write to a PostgreSQL, and one that was held up may not know yet that another has taken over.
func TestRoomMemory_OnPostgres_RemembersNothing(t *testing.T) {
	s := storetest.Open(t, storetest.Postgres(t), store.Options{})
	if known(t, s); store.Remembers(s, "!r", "@u") {
		t.Error("a membership is remembered")
	}
}

func TestRoomMemory_StatementsThatChangeRooms_ComeThroughIt(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	change := regexp.MustCompile("tx\\.(\\w+)\\([^`\n]*`(?:INSERT INTO|UPDATE|DELETE FROM) (?:member|room)\\b")
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range change.FindAllStringSubmatch(string(source), -1) {
			if found++; match[1] != "room" {
				t.Errorf("%s: %s: use tx.room, which takes the room out of memory", file, match[0])
			}
		}
	}
	if found < 6 {
		t.Errorf("only %d such statements were found: the test looks for them in vain", found)
	}
}
