package appservice_test

import (
	"errors"
	"net/http"
	"regexp"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestC9_RemovedGhost_HasNoDeviceLeftAndAnotherWhenItSpeaksAgain(t *testing.T) {
	for _, kind := range bridgetest.Personalities() {
		t.Run(kind.String(), func(t *testing.T) {
			s := newSite(t, kind)
			s.mustSay("1")
			before := s.known().DeviceID
			for range 2 { // what was done is not done again
				if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.wantDevices()
				if g := s.known(); g.DeviceID != "" || g.DeviceMade {
					t.Errorf("the store still has %+v", g)
				}
			}
			s.mustSay("2")
			if s.known().DeviceMade && s.known().DeviceID == before {
				t.Error("a device that was deleted came back under its old ID")
			}
		})
	}
}

func TestC7_DeletingADevice_NeedsNoAuthAndNamesNoDeviceToActAs(t *testing.T) {
	s := newSite(t, bridgetest.SynapseOAuth) // where delete_devices is not there
	s.mustSay("1")
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	deletes := s.requests("DELETE", "/devices/")
	if len(deletes) != 1 || deletes[0].Query.Get("user_id") != string(ghost) || deletes[0].Query.Has("device_id") {
		t.Errorf("requests %+v", deletes)
	}
	if others := s.requests("POST", "delete_devices"); len(others) != 0 {
		t.Errorf("requests %+v", others)
	}
}

func TestC9_RemovalWhoseAnswerIsLost_IsEndedByTheNext(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.mustSay("1")
	s.hs.Fault(bridgetest.Fault{Method: "DELETE", Path: regexp.MustCompile("/devices/"), Drop: true, DropAfter: true})
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err == nil {
		t.Fatal("no error, although no answer came")
	}
	if s.known().DeviceID == "" {
		t.Error("the device was forgotten before the homeserver said that it is gone")
	}
	s.restart()
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil || s.known().DeviceID != "" {
		t.Errorf("%v, known %+v", err, s.known())
	}
}

func TestC9_DeviceThatIsMissing_CountsAsDeleted(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.mustSay("1")
	s.hs.Fault(bridgetest.Fault{Method: "DELETE", Status: http.StatusNotFound, ErrCode: "M_NOT_FOUND"})
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil || s.known().DeviceID != "" {
		t.Errorf("%v, known %+v", err, s.known())
	}
}

func TestC9_TransientFailure_ForgetsNothing(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.mustSay("1")
	for _, fault := range []bridgetest.Fault{
		{Method: "DELETE", Status: http.StatusBadGateway, ErrCode: "M_UNKNOWN"},
		{Method: "DELETE", Status: http.StatusForbidden, ErrCode: "M_FORBIDDEN"}, // and whoami knows the user
		{Method: "DELETE", Drop: true},
	} {
		s.hs.Fault(fault)
		if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err == nil || s.known().DeviceID == "" {
			t.Errorf("%+v: %v, known %+v", fault, err, s.known())
		}
	}
}

// Dendrite asks for a password that nobody has, also for a device that is not there.
func TestC8_E2_HomeserverThatAsksForAPassword_IsNotAskedAgainAndTheDeviceIsLoggedOut(t *testing.T) {
	s := newSite(t, bridgetest.Dendrite, withoutLoginRefusal)
	s.leaveDevice("LEFTBEHIND1")
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantDevices()
	if n := len(s.requests("DELETE", "/devices/")); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	// The token of the device is not the bridge's: nobody is named beside it.
	outs := s.hs.Requests(func(r bridgetest.Request) bool { return r.Method == "POST" && r.Path == "/_matrix/client/v3/logout" })
	if len(outs) != 1 || outs[0].Query.Has("user_id") || outs[0].Query.Has("device_id") || outs[0].AppService != "" || outs[0].Device != "LEFTBEHIND1" {
		t.Errorf("logged out by %+v", outs)
	}
}

func TestC8_DeviceThatNothingDeletes_StaysKnownAndTheErrorSaysWhatToDo(t *testing.T) {
	s := newSite(t, bridgetest.Dendrite, withoutLoginRefusal)
	s.leaveDevice("LEFTBEHIND1")
	s.hs.Fault(bridgetest.Fault{Method: "POST", Path: regexp.MustCompile("/login$"), Status: http.StatusBadRequest, ErrCode: "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED"})
	if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); !errors.Is(err, appservice.ErrDeviceKept) || s.known().DeviceID == "" {
		t.Errorf("%v, known %+v", err, s.known())
	}
	if n := len(s.requests("DELETE", "/devices/")); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}
