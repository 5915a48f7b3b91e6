package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// odd is text that a database may refuse or change: NUL, invalid UTF-8, quotes, and the store's own mark.
var odd = []string{"", "plain", "a\x00b", "\xff\xfe", "'\"$1?%", "\x01abc", "ü🎉", strings.Repeat("x", 5000)}

func fails(s *store.Store, job func(tx *store.Tx) error) error {
	return s.Commit(ctx(), s.Epoch(), job)
}

var recordChecks = []check{
	{"Text_OfAnyBytes_ComesBack", func(t *testing.T, db *database) {
		s := db.open(t)
		for i, text := range odd {
			d := store.DeadLetter{Kind: text, Lane: text, Key: text, Op: text, Body: []byte(text), Size: len(text)}
			m := store.Message{Channel: text, RemoteID: fmt.Sprint(text, i), Event: text, Room: text, Sender: text, At: start}
			Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.Bury(&d), tx.PutMessage(&m)) })
			got, err := s.DeadLetter(ctx(), d.ID)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "dead letter", *got, d)
			messages, err := s.MessagesByRemote(ctx(), m.Channel, m.RemoteID)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "messages", messages, []store.Message{m})
		}
	}},
	{"CancelOutgoing_OfARowThatWasNeverTried_TakesItAndNoOther", func(t *testing.T, db *database) {
		s := db.open(t)
		var tried, kept, waits store.Outgoing
		for key, o := range map[string]*store.Outgoing{"a\x00tried": &tried, "a\x00kept": &kept, "a\x00waits": &waits} {
			*o = store.Outgoing{Lane: "!r", Key: key, Op: "message", TxnID: "x", Payload: []byte("p")}
			Commit(t, s, func(tx *store.Tx) error { _, err := tx.Enqueue(o); return err })
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingAttempt(tried.ID, "away", start) })
		for _, key := range []string{tried.Key, kept.Key, waits.Key, "nothing"} {
			Commit(t, s, func(tx *store.Tx) error {
				return tx.CancelOutgoing("!r", key, func(id int64) bool { return id != kept.ID })
			})
		}
		var left []int64
		if err := s.OutgoingBacklog(ctx(), func(_ string, id int64) error { left = append(left, id); return nil }); err != nil {
			t.Fatal(err)
		}
		expect(t, "rows left", len(left), 2)
		if _, err := s.Outgoing(ctx(), waits.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the row that waited is there: %v", err)
		}
		newest, err := s.NewestOutgoing(ctx(), "!r", "message")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "the last row", newest.ID, max(tried.ID, kept.ID))
	}},
	{"NewestRemote_IsTheNewestThatCameFromTheChannel", func(t *testing.T, db *database) {
		s := db.open(t)
		if at, err := s.NewestRemote(ctx(), "#c"); err != nil || !at.IsZero() {
			t.Errorf("%v and %v where there is none", at, err)
		}
		for i, fromMatrix := range []bool{false, false, true} {
			m := store.Message{Channel: "#c", RemoteID: fmt.Sprint(i), Event: "$e", FromMatrix: fromMatrix, At: start.Add(time.Duration(i) * time.Minute)}
			Commit(t, s, func(tx *store.Tx) error { return tx.PutMessage(&m) })
		}
		at, err := s.NewestRemote(ctx(), "#c")
		if err != nil || !at.Equal(start.Add(time.Minute)) {
			t.Errorf("%v and %v", at, err)
		}
	}},
	{"Enqueue_SameKeyAgain_IsNotFresh", func(t *testing.T, db *database) {
		s := db.open(t)
		put := func(s *store.Store, key string) (fresh bool, id int64) {
			Commit(t, s, func(tx *store.Tx) (err error) {
				o := store.Outgoing{Lane: "#c", Key: key, Op: "message", TxnID: "x", Payload: []byte("p")}
				fresh, err = tx.Enqueue(&o)
				id = o.ID
				return err
			})
			return fresh, id
		}
		fresh, id := put(s, "r1")
		expect(t, "first", fresh, true)
		fresh, _ = put(s, "r1")
		expect(t, "second", fresh, false)
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingDone(id) })
		shut(t, s)
		s = db.open(t)
		fresh, _ = put(s, "r1")
		expect(t, "after it was done, and a restart", fresh, false)
		for range 2 {
			fresh, again := put(s, "")
			expect(t, "without a key", fresh, true)
			if again <= id {
				t.Errorf("ID %d came after %d", again, id)
			}
			id = again
		}
	}},
	{"Outbox_KeepsDoubtAndAttempts", func(t *testing.T, db *database) {
		s := db.open(t)
		next := start.Add(time.Minute)
		want := store.Outgoing{Lane: "#c", Key: "k", Op: "message", TxnID: "txn", Payload: []byte{0, 1, 255}}
		Commit(t, s, func(tx *store.Tx) error { _, err := tx.Enqueue(&want); return err })
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingDoubt(want.ID) })
		read := func() store.Outgoing {
			o, err := s.Outgoing(ctx(), want.ID)
			if err != nil {
				t.Fatal(err)
			}
			return *o
		}
		want.Doubt, want.Created = true, start
		expect(t, "in doubt", read(), want)
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingAttempt(want.ID, "503", next) })
		want.Doubt, want.Attempts, want.Cause, want.NextAt = false, 1, "503", next
		expect(t, "after an attempt", read(), want)
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingDone(want.ID) })
		_, err := s.Outgoing(ctx(), want.ID)
		expectError(t, "Outgoing", err, store.ErrNotFound)
		expectError(t, "OutgoingDoubt", fails(s, func(tx *store.Tx) error { return tx.OutgoingDoubt(want.ID) }), store.ErrNotFound)
		expectError(t, "OutgoingAttempt", fails(s, func(tx *store.Tx) error { return tx.OutgoingAttempt(want.ID, "", next) }), store.ErrNotFound)
		Commit(t, s, func(tx *store.Tx) error { return tx.OutgoingDone(want.ID) })
	}},
	{"OutgoingBacklog_IsInOrder", func(t *testing.T, db *database) {
		s := db.open(t)
		const n = 2500
		Commit(t, s, func(tx *store.Tx) error {
			for i := range n {
				if _, err := tx.Enqueue(&store.Outgoing{Lane: fmt.Sprint("#", i)}); err != nil {
					return err
				}
			}
			return nil
		})
		i, last := 0, int64(0)
		err := s.OutgoingBacklog(ctx(), func(lane string, id int64) error {
			if lane != fmt.Sprint("#", i) || id <= last {
				return fmt.Errorf("entry %d is %d in lane %s", i, id, lane)
			}
			i, last = i+1, id
			return nil
		})
		if err != nil || i != n {
			t.Errorf("%d entries, %v", i, err)
		}
	}},
	{"Messages_AreFoundFromBothEnds", func(t *testing.T, db *database) {
		s := db.open(t)
		part := func(n int, event string) store.Message {
			return store.Message{Channel: "#c", RemoteID: "r", Part: n, Event: event, Room: "!a", Sender: "@u", FromMatrix: true, At: start}
		}
		one, zero := part(1, "$e"), part(0, "$old")
		Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.PutMessage(&one), tx.PutMessage(&zero)) })
		zero.Event = "$e"
		Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.PutMessage(&one), tx.PutMessage(&zero)) })
		for what, find := range map[string]func() ([]store.Message, error){
			"remote": func() ([]store.Message, error) { return s.MessagesByRemote(ctx(), "#c", "r") },
			"event":  func() ([]store.Message, error) { return s.MessagesByEvent(ctx(), "$e") },
		} {
			got, err := find()
			if err != nil {
				t.Fatal(err)
			}
			expect(t, what, got, []store.Message{zero, one})
		}
		none, err := s.MessagesByEvent(ctx(), "$old")
		if err != nil || len(none) != 0 {
			t.Errorf("old event: %v, %v", none, err)
		}
	}},
	{"Messages_OfOneEvent_ComeInTheOrderOfTheirParts", func(t *testing.T, db *database) {
		s := db.open(t)
		want := []store.Message{
			{Channel: "#c", RemoteID: "z", Part: 0, Event: "$e", Room: "!a", Sender: "@u", FromMatrix: true, At: start},
			{Channel: "#c", RemoteID: "m", Part: 1, Event: "$e", Room: "!a", Sender: "@u", FromMatrix: true, At: start},
			{Channel: "#c", RemoteID: "a", Part: 2, Event: "$e", Room: "!a", Sender: "@u", FromMatrix: true, At: start},
		}
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutMessage(&want[2]), tx.PutMessage(&want[0]), tx.PutMessage(&want[1]))
		})
		got, err := s.MessagesByEvent(ctx(), "$e")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "messages", got, want)
	}},
	{"Encrypted_OnceTrue_StaysTrue", func(t *testing.T, db *database) {
		s := db.open(t)
		for i, step := range []struct{ set, want bool }{{false, false}, {true, true}, {false, true}, {true, true}} {
			Commit(t, s, func(tx *store.Tx) error { return tx.SetEncrypted("!a", step.set) })
			encrypted, known, err := s.Encrypted(ctx(), "!a")
			if err != nil || !known || encrypted != step.want {
				t.Errorf("step %d: %v %v %v", i, encrypted, known, err)
			}
		}
		if _, known, err := s.Encrypted(ctx(), "!b"); known || err != nil {
			t.Errorf("unknown room: %v %v", known, err)
		}
	}},
	{"Noticed_IsFreshOnce", func(t *testing.T, db *database) {
		s := db.open(t)
		notice := func(s *store.Store, what string) (fresh bool) {
			Commit(t, s, func(tx *store.Tx) (err error) { fresh, err = tx.SetNoticed("!a", what); return err })
			return fresh
		}
		expect(t, "first", notice(s, "encrypted"), true)
		expect(t, "second", notice(s, "encrypted"), false)
		expect(t, "another", notice(s, "other"), true)
		shut(t, s)
		s = db.open(t)
		expect(t, "after a restart", notice(s, "encrypted"), false)
	}},
	{"Members_AreKept", func(t *testing.T, db *database) {
		s := db.open(t)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.SetMember("!a", "@u", "invite"), tx.SetMember("!a", "@v", "join"), tx.SetMember("!a", "@u", "join"),
				tx.SetMember("!a", "@w", "join"), tx.SetMember("!a", "@w", ""), tx.SetMember("!b", "@x", "join"),
				tx.SetOutside("!a", "@u", "invite"), tx.SetOutside("!b", "@y", "invite"), tx.SetMember("!b", "@z", "leave"), tx.SetOutside("!b", "@z", "knock"))
		})
		got, err := s.Members(ctx(), "!a")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "members", got, map[string]string{"@u": "join", "@v": "join"})
		got, err = s.Members(ctx(), "!b")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "members of another", got, map[string]string{"@x": "join", "@y": "invite", "@z": "knock"})
		for user, want := range map[string]string{"@u": "join", "@w": ""} {
			if m, err := s.Member(ctx(), "!a", user); m != want || err != nil {
				t.Errorf("%s: %q, %v", user, m, err)
			}
		}
	}},
	{"Room_EventsWhileItIsRead_HoldAgainstWhatWasRead", func(t *testing.T, db *database) {
		s := db.open(t)
		knows := func(want bool) {
			t.Helper()
			if known, err := s.KnowsRoom(ctx(), "!a"); known != want || err != nil {
				t.Errorf("known %v, %v", known, err)
			}
		}
		expectState := func(typ, want string) {
			t.Helper()
			got, err := s.RoomState(ctx(), "!a", typ)
			if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			if string(got) != want || err != nil {
				t.Errorf("%s is %q, want %q: %v", typ, got, want, err)
			}
		}
		knows(false)
		Commit(t, s, func(tx *store.Tx) error { // of a room that is not known nothing is kept
			return errors.Join(tx.SetRoomState("!a", "levels", []byte("old")), tx.SetRoomMember("!a", "@x", "join"), tx.SetMember("!a", "@gone", "join"))
		})
		expectState("levels", "")
		Commit(t, s, func(tx *store.Tx) error { return tx.BeginRoom("!a", map[string]string{"@own": "join"}) })
		knows(false)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.SetRoomState("!a", "levels", []byte("newer")), tx.SetRoomMember("!a", "@left", "leave"))
		})
		Commit(t, s, func(tx *store.Tx) error {
			return tx.ReadRoom("!a", map[string]string{"@left": "join", "@own": "invite"}, map[string][]byte{"levels": []byte("read")}, false)
		})
		knows(false)
		Commit(t, s, func(tx *store.Tx) error {
			return tx.ReadRoom("!a", map[string]string{"@u": "join"}, map[string][]byte{"levels": []byte("read"), "create": []byte("read")}, true)
		})
		knows(true)
		expectState("levels", "newer")
		expectState("create", "read")
		got, err := s.Members(ctx(), "!a")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "members", got, map[string]string{"@left": "leave", "@own": "join", "@u": "join"})
		Commit(t, s, func(tx *store.Tx) error { return tx.LeaveRoom("!a", "@own") })
		knows(true)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutGhost(&store.Ghost{UserID: "@own"}), tx.SetMember("!a", "@own", "leave"), tx.LeaveRoom("!a", "@own"))
		})
		knows(false)
		expectState("levels", "")
		if got, err = s.Members(ctx(), "!a"); err != nil {
			t.Fatal(err)
		}
		expect(t, "members of a room that was left", got, map[string]string{"@own": "leave"})
	}},
	{"Ghosts_AreKept", func(t *testing.T, db *database) {
		s := db.open(t)
		want := store.Ghost{UserID: "@g:x", Registered: true, DeviceID: "D", DeviceMade: true, DisplayName: "G", AvatarURL: "mxc://x/y", LastWrite: start}
		_, err := s.Ghost(ctx(), want.UserID)
		expectError(t, "Ghost", err, store.ErrNotFound)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutGhost(&store.Ghost{UserID: "@g:x"}), tx.PutGhost(&want), tx.PutGhost(&store.Ghost{UserID: "@a:x"}))
		})
		got, err := s.Ghost(ctx(), want.UserID)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "ghost", *got, want)
		Commit(t, s, func(tx *store.Tx) error {
			for i := range 2100 {
				if err := tx.PutGhost(&store.Ghost{UserID: fmt.Sprintf("@z%05d:x", i)}); err != nil {
					return err
				}
			}
			return nil
		})
		seen := map[string]bool{}
		err = s.Ghosts(ctx(), func(g *store.Ghost) error { seen[g.UserID] = true; return nil })
		if err != nil || len(seen) != 2102 || !seen["@g:x"] || !seen["@a:x"] {
			t.Errorf("%d ghosts, %v", len(seen), err)
		}
	}},
	{"Portals_AreUniqueByChannelAndRoom", func(t *testing.T, db *database) {
		s := db.open(t)
		put := func(channel, room, topic string) error {
			return fails(s, func(tx *store.Tx) error {
				return tx.PutPortal(&store.Portal{Channel: channel, Room: room, Source: "command", Topic: topic, Name: "n"})
			})
		}
		if err := errors.Join(put("#a", "", ""), put("#b", "", ""), put("#a", "!a", ""), put("#a", "!a", "t")); err != nil {
			t.Fatal(err)
		}
		err := put("#b", "!a", "")
		expectError(t, "the room of another", err, store.ErrTaken)
		if err != nil && !strings.Contains(err.Error(), "#a") {
			t.Errorf("the error does not name the other: %v", err)
		}
		err = put("#a", "!b", "")
		expectError(t, "another room", err, store.ErrTaken)
		if err != nil && !strings.Contains(err.Error(), "!a") {
			t.Errorf("the error does not name the other: %v", err)
		}
		got, err := s.Portals(ctx())
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "portals", got, []store.Portal{
			{Channel: "#a", Room: "!a", Source: "command", Topic: "t", Name: "n", Created: start},
			{Channel: "#b", Source: "command", Name: "n", Created: start},
		})
		Commit(t, s, func(tx *store.Tx) error { return tx.DeletePortal("#a") })
		expectError(t, "DeletePortal", fails(s, func(tx *store.Tx) error { return tx.DeletePortal("#a") }), store.ErrNotFound)
		if err = put("#b", "!a", ""); err != nil {
			t.Error(err)
		}
	}},
	{"Settings_AreKept", func(t *testing.T, db *database) {
		s := db.open(t)
		put := func(v []byte) { Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("k", v) }) }
		_, err := s.Setting(ctx(), "k")
		expectError(t, "Setting", err, store.ErrNotFound)
		for _, v := range [][]byte{{1, 0, 255}, {}, []byte("v")} {
			put(v)
			got, err := s.Setting(ctx(), "k")
			if err != nil {
				t.Fatal(err)
			}
			expect(t, "value", got, v)
		}
		put(nil)
		_, err = s.Setting(ctx(), "k")
		expectError(t, "deleted", err, store.ErrNotFound)
	}},
}
