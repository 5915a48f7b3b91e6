package appservice

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

func memberOf(event, user, membership string) string {
	return fmt.Sprintf(`{"type":"m.room.member","event_id":%q,"room_id":%q,"sender":%q,"state_key":%q,"content":{"membership":%q}}`, event, testRoom, user, user, membership)
}

// heldRoom is a room that is known, with alice in it, and whose lane waits until release is called.
func heldRoom(t *testing.T) (f *fixture, release func()) {
	hold := make(chan struct{})
	f = newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil, nil
	}
	err := f.store.Commit(t.Context(), f.store.Epoch(), func(tx *store.Tx) error {
		if err := tx.BeginRoom(testRoom, nil); err != nil {
			return err
		}
		return tx.ReadRoom(testRoom, map[string]string{"@alice:hs.test": "join"}, nil, true)
	})
	if err != nil {
		t.Fatal(err)
	}
	return f, func() { close(hold); f.idle() }
}

func (f *fixture) memberIs(user, want string) {
	f.t.Helper()
	if got, err := f.store.Member(f.t.Context(), testRoom, user); err != nil || got != want {
		f.t.Errorf("%s: %q, %v; want %q", user, got, err, want)
	}
}

func TestMembership_IsWrittenWithTheTransaction_WhateverItsLaneWaitsFor(t *testing.T) {
	f, release := heldRoom(t)
	drops := f.store.KeyDrops()
	f.mustPut("1", events(message("$1"), memberOf("$2", "@alice:hs.test", "leave"), memberOf("$3", "@bob:hs.test", "join")))
	f.memberIs("@alice:hs.test", "leave")
	f.memberIs("@bob:hs.test", "join")
	dropped := false
	err := f.store.Commit(t.Context(), f.store.Epoch(), func(tx *store.Tx) error { dropped = tx.KeysDropped(drops, testRoom); return nil })
	if err != nil || !dropped {
		t.Errorf("who has left would have the room's next keys: %v", err)
	}
	release()
	f.memberIs("@alice:hs.test", "leave")
}

func TestMembership_EventThatComesAgain_ChangesNothing(t *testing.T) {
	f, release := heldRoom(t)
	defer release()
	f.mustPut("1", events(memberOf("$1", "@bob:hs.test", "join")))
	f.mustPut("2", events(memberOf("$2", "@bob:hs.test", "leave")))
	f.mustPut("3", events(memberOf("$1", "@bob:hs.test", "join"), message("$3")))
	f.memberIs("@bob:hs.test", "leave")
}

// A ghost that is kicked reads what was said before: the bridge has not come to it yet.
func TestMembership_OfOurOwn_IsWrittenInItsTurn(t *testing.T) {
	f, release := heldRoom(t)
	err := f.store.Commit(t.Context(), f.store.Epoch(), func(tx *store.Tx) error {
		return errors.Join(tx.PutGhost(&store.Ghost{UserID: "@irc_a:hs.test"}), tx.SetMember(testRoom, "@irc_a:hs.test", "join"))
	})
	if err != nil {
		t.Fatal(err)
	}
	kick := fmt.Sprintf(`{"type":"m.room.member","event_id":"$2","room_id":%q,"sender":"@op:hs.test","state_key":"@irc_a:hs.test","content":{"membership":"leave"}}`, testRoom)
	f.mustPut("1", events(message("$1"), kick))
	f.memberIs("@irc_a:hs.test", "join")
	release()
	f.memberIs("@irc_a:hs.test", "leave")
}

// A ghost follows an invitation before its event is handled: it is in the room all the same.
func TestMembership_InvitationThatComesAfterTheJoining_TakesNobodyOut(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	event := func(id, membership string) string {
		return fmt.Sprintf(`{"type":"m.room.member","event_id":%q,"room_id":%q,"sender":"@op:hs.test","state_key":"@irc_a:hs.test","content":{"membership":%q}}`, id, testRoom, membership)
	}
	f.mustPut("1", events(event("$1", "invite")))
	f.idle()
	f.memberIs("@irc_a:hs.test", "invite")
	if _, err := f.send(ghostA, "t1"); err != nil {
		t.Fatal(err)
	}
	f.mustPut("2", events(event("$2", "invite")))
	f.idle()
	f.memberIs("@irc_a:hs.test", "join")
	f.mustPut("3", events(event("$3", "leave"), event("$4", "invite")))
	f.idle()
	f.memberIs("@irc_a:hs.test", "invite")
}
