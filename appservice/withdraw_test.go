package appservice_test

import (
	"slices"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Joined, invited, left, banned and unheard-of rooms: afterwards the user is in none, and none was joined for it.
func TestWithdraw_WhateverTheUserIsInARoom_ItIsInNone(t *testing.T) {
	for _, kind := range bridgetest.Personalities() {
		t.Run(kind.String(), func(t *testing.T) {
			s := newSite(t, kind)
			s.mustSay("1")
			alice := s.hs.User("alice")
			room := func(change func(room id.RoomID) error) id.RoomID {
				r, err := alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"})
				if err == nil {
					err = change(r)
				}
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			in := func(r id.RoomID) error { return s.as.Ghost(ghost).EnsureJoined(t.Context(), r) }
			unknown := room(in) // what the store has forgotten
			invited := room(func(r id.RoomID) error { return alice.Invite(t.Context(), r, ghost) })
			left := room(func(r id.RoomID) error {
				if err := in(r); err != nil {
					return err
				}
				return s.as.Ghost(ghost).Leave(t.Context(), r, "")
			})
			joins := len(s.requests("POST", "/join"))
			for n, want := range []int{2, 0} { // again does nothing
				got, err := s.as.Ghost(ghost).Withdraw(t.Context(), []id.RoomID{s.room, invited, left, "!nowhere:hs.test"}, "over")
				if err != nil || got != want {
					t.Errorf("time %d: left %d rooms, %v; want %d", n+1, got, err, want)
				}
			}
			for _, r := range []id.RoomID{s.room, unknown, invited, left} {
				members, err := alice.Members(t.Context(), r)
				if err != nil || members[ghost] != "leave" {
					t.Errorf("in %s the ghost is %q, %v", r, members[ghost], err)
				}
			}
			if rooms, err := s.as.Ghost(ghost).JoinedRooms(t.Context()); err != nil || len(rooms) != 0 {
				t.Errorf("it is in %v, %v", rooms, err)
			}
			if more := len(s.requests("POST", "/join")); more != joins {
				t.Errorf("%d rooms were joined for it", more-joins)
			}
		})
	}
}

// Somebody whom the homeserver does not have is in no room, and is not registered for being asked.
func TestWithdraw_UserWhoIsNotThere_IsNotMade(t *testing.T) {
	for _, kind := range bridgetest.Personalities() {
		t.Run(kind.String(), func(t *testing.T) {
			s := newSite(t, kind)
			const nobody = id.UserID("@irc_nobody:hs.test")
			if left, err := s.as.Ghost(nobody).Withdraw(t.Context(), []id.RoomID{s.room}, ""); err != nil || left != 0 {
				t.Errorf("left %d rooms, %v", left, err)
			}
			if s.hs.Registered(nobody) || slices.ContainsFunc(s.requests("POST", "/register"), func(bridgetest.Request) bool { return true }) {
				t.Error("it was registered")
			}
		})
	}
}
