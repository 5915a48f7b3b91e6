package appservice_test

import (
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Who has too little power in a room it is in neither joins it again nor says the same again.
func TestSend_RefusedForTooLittlePower_IsAskedOnce(t *testing.T) {
	for _, kind := range bridgetest.Personalities() {
		t.Run(kind.String(), func(t *testing.T) {
			s := newSite(t, kind)
			s.mustSay("1")
			alice := s.hs.User("alice")
			levels := map[string]any{"users": map[string]any{string(alice.ID()): 100}, "events_default": 50}
			if _, err := alice.SendState(t.Context(), s.room, "m.room.power_levels", "", levels); err != nil {
				t.Fatal(err)
			}
			device, joins := s.known().DeviceID, len(s.requests("POST", "/join"))
			if err := s.say("2"); err == nil {
				t.Error("no error")
			}
			if n := len(s.requests("PUT", "/send/")); n != 2 {
				t.Errorf("asked %d times, want 1", n-1)
			}
			if n := len(s.requests("POST", "/join")) - joins; n != 0 || s.known().DeviceID != device {
				t.Errorf("joined %d times; the device was %s and is %s", n, device, s.known().DeviceID)
			}
		})
	}
}

// One who was thrown out, and does not know it yet, comes in again.
func TestSend_RefusedForNotBeingInTheRoom_ComesInAgain(t *testing.T) {
	for _, kind := range bridgetest.Personalities() {
		t.Run(kind.String(), func(t *testing.T) {
			s := newSite(t, kind)
			s.mustSay("1")
			if err := s.hs.User("alice").Kick(t.Context(), s.room, ghost, ""); err != nil {
				t.Fatal(err)
			}
			s.mustSay("2")
		})
	}
}
