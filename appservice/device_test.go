package appservice_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// way is how a homeserver gives devices.
type way struct {
	name   string
	kind   bridgetest.Personality
	change func(*appservice.Registration)
	mode   string
	method string
	actAs  bool
}

var ways = []way{
	{"Synapse", bridgetest.Synapse, unchanged, "auto", "msc4190", true},
	{"Synapse, logins not given up", bridgetest.Synapse, withoutLoginRefusal, "auto", "msc4190", true},
	{"Synapse, by login", bridgetest.Synapse, withoutLoginRefusal, "login", "login", true},
	{"Synapse with OAuth", bridgetest.SynapseOAuth, unchanged, "auto", "msc4190", true},
	{"Continuwuity", bridgetest.Continuwuity, unchanged, "auto", "msc4190", true},
	{"Tuwunel", bridgetest.Tuwunel, unchanged, "auto", "msc4190", true},
	{"Tuwunel without device_management", bridgetest.Tuwunel, withoutLoginRefusal, "auto", "login", true},
	{"Dendrite", bridgetest.Dendrite, unchanged, "auto", "login", false},
	{"Dendrite, by login", bridgetest.Dendrite, unchanged, "login", "login", false},
}

func unchanged(*appservice.Registration) {}

func (w *way) site(t *testing.T) *site {
	s := newSite(t, w.kind, w.change)
	s.restart(mode(w.mode))
	return s
}

func TestC17_E7_E8_EachHomeserver_IsFoundOutByTryingAndRemembered(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			s := way.site(t)
			s.mustSay("1")
			found, err := s.as.DeviceSupport(t.Context())
			if err != nil || found.Method != way.method || found.ActAs != way.actAs || (found.Cause == "") != way.actAs && way.mode == "auto" && way.method == "msc4190" {
				t.Fatalf("found %+v %v", found, err)
			}
			if way.actAs {
				s.wantDevices(s.known().DeviceID)
			} else {
				s.wantDevices() // what was made to find out is gone
				if s.known().DeviceID != "" || s.hs.Logins(ghost) != 0 {
					t.Errorf("known %+v, %d logins", s.known(), s.hs.Logins(ghost))
				}
			}
			questions := func() int {
				return len(s.requests("GET", "/whoami$")) + len(s.requests("GET", "/login$"))
			}
			before, puts := questions(), len(s.requests("PUT", "/devices/"))
			s.restart(mode(way.mode))
			other := s.as.Ghost("@irc_bob:hs.test")
			device, err := other.EnsureDevice(t.Context())
			if err != nil || (device != "") != way.actAs {
				t.Errorf("another ghost has device %q, %v", device, err)
			}
			if n := questions() - before; n != 0 {
				t.Errorf("%d questions were asked again after a restart", n)
			}
			want := 0
			if way.method == "msc4190" {
				want = 1
			}
			if n := len(s.requests("PUT", "/devices/")) - puts; n != want {
				t.Errorf("another ghost cost %d device PUTs, want %d", n, want)
			}
			s.mustSay("2")
			if devices := s.hs.Devices(ghost); way.actAs && (len(devices) != 1 || devices[0] != id.DeviceID(s.known().DeviceID)) {
				t.Errorf("devices %v", devices)
			}
			sends := s.requests("PUT", "/send/")
			for _, r := range sends {
				if got := r.Query.Get("device_id"); (got != "") != way.actAs || r.Status != 200 {
					t.Errorf("sent with device %q: %d", got, r.Status)
				}
			}
		})
	}
}

func TestC12_C16_B15_LoginsThatAreRefused_MakeAnErrorThatNamesTheKeys(t *testing.T) {
	for name, s := range map[string]*site{
		"OAuth: no login at all":            newSite(t, bridgetest.SynapseOAuth),
		"Synapse, given up by registration": newSite(t, bridgetest.Synapse), // which has no auth_metadata: nothing is made of that
		"Tuwunel, with device_management":   newSite(t, bridgetest.Tuwunel),
	} {
		t.Run(name, func(t *testing.T) {
			s.restart(mode(appservice.DeviceLogin))
			for range 3 {
				err := s.say("1")
				if !errors.Is(err, appservice.ErrNoDevices) || !strings.Contains(err.Error(), "io.element.msc4190") || !strings.Contains(err.Error(), "device_management") {
					t.Errorf("%v", err)
				}
			}
			if n := len(s.requests("GET", "/login$")) + len(s.requests("POST", "/login$")); n > 2 {
				t.Errorf("/login was asked %d times", n)
			}
			s.wantDevices()
			s.restart(mode(appservice.DeviceAuto)) // the answer to another question
			s.mustSay("1")
			s.wantDevices(s.known().DeviceID)
		})
	}
}

func TestE8_DeviceModeThatTheHomeserverHasNot_IsAClearErrorAndNotAskedAgain(t *testing.T) {
	s := newSite(t, bridgetest.Dendrite)
	s.restart(mode(appservice.DeviceMSC4190))
	for range 3 {
		if err := s.say("1"); !errors.Is(err, appservice.ErrNoDevices) || !strings.Contains(err.Error(), "M_FORBIDDEN") {
			t.Errorf("%v", err)
		}
	}
	if n := len(s.requests("PUT", "/devices/")); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// decidesNothing are answers after which a ghost has no device, and the next is asked for in the same way.
var decidesNothing = []bridgetest.Fault{
	{Status: 500, ErrCode: "M_UNKNOWN"}, {Status: 502, ErrCode: "M_UNKNOWN"}, {Status: 503, ErrCode: "M_UNRECOGNIZED"},
	{Status: 403, ErrCode: "M_USER_SUSPENDED"}, {Status: 401, ErrCode: "M_UNKNOWN_TOKEN"}, {Status: 401, ErrCode: "M_MISSING_TOKEN"},
	{Status: 403, ErrCode: "M_MISSING_TOKEN"}, {Status: 400, ErrCode: "M_EXCLUSIVE"}, {Status: 403, ErrCode: "M_EXCLUSIVE"}, {Drop: true}, {Drop: true, DropAfter: true},
}

// decidesAgainstPut are answers of a homeserver that makes no devices by PUT.
var decidesAgainstPut = []bridgetest.Fault{
	{Status: 404, ErrCode: "M_FORBIDDEN"}, {Status: 403, ErrCode: "M_FORBIDDEN"}, {Status: 404, ErrCode: "M_NOT_FOUND"},
	{Status: 404, ErrCode: "M_UNRECOGNIZED"}, {Status: 405, ErrCode: "M_UNRECOGNIZED"}, {Status: 400, ErrCode: "M_INVALID_PARAM"},
}

func TestC17_B9_WhatDecides_IsTheErrorCodeAndNoPassingFailure(t *testing.T) {
	for _, step := range []struct{ method, path string }{{"PUT", "/devices/"}, {"POST", "/login$"}, {"GET", "/login$"}, {"GET", "/whoami$"}} {
		for _, fault := range decidesNothing {
			switch {
			case step.path == "/whoami$" && fault.ErrCode == "M_EXCLUSIVE":
				continue // of a device that is not there, this is how a homeserver may put it
			case step.method == "GET" && fault.Drop:
				continue // net/http asks again by itself
			}
			s := newSite(t, bridgetest.Tuwunel, withoutLoginRefusal) // which takes every step
			fault.Method, fault.Path = step.method, regexp.MustCompile(step.path)
			s.hs.Fault(fault)
			if err := s.say("1"); err == nil {
				t.Errorf("%s %s %+v: no error", step.method, step.path, fault)
			}
			if found, err := s.as.DeviceSupport(t.Context()); err != nil || found.Method != "" {
				t.Errorf("%s %s %+v decided for %+v, %v", step.method, step.path, fault, found, err)
			}
			s.mustSay("1")
			if _, err := s.as.Ghost("@irc_bob:hs.test").EnsureDevice(t.Context()); err != nil {
				t.Error(err)
			}
			if found, _ := s.as.DeviceSupport(t.Context()); found.Method != "login" || !found.ActAs {
				t.Errorf("%s %s %+v led to %+v", step.method, step.path, fault, found)
			}
			if n := len(s.requests("PUT", "/devices/")); n > 3 {
				t.Errorf("%s %s %+v: PUT was asked %d times", step.method, step.path, fault, n)
			}
			s.wantDevices(s.known().DeviceID)
			if n := s.hs.Logins(ghost); n != 1 {
				t.Errorf("%s %s %+v left %d logins", step.method, step.path, fault, n)
			}
		}
	}
	for _, fault := range decidesAgainstPut {
		s := newSite(t, bridgetest.Synapse, withoutLoginRefusal)
		fault.Method, fault.Path, fault.Times = "PUT", regexp.MustCompile("/devices/"), -1
		s.hs.Fault(fault)
		s.mustSay("1")
		if found, _ := s.as.DeviceSupport(t.Context()); found.Method != "login" || !found.ActAs || !strings.Contains(found.Cause, fault.ErrCode) {
			t.Errorf("%+v led to %+v", fault, found)
		}
		if n := len(s.requests("PUT", "/devices/")); n != 1 {
			t.Errorf("%+v: asked %d times", fault, n)
		}
	}
}

func TestC8_C17_PasswordAskedForADevice_MeansThatThereIsNoPut(t *testing.T) {
	s := newSite(t, bridgetest.Synapse, withoutLoginRefusal)
	s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "PUT" || !strings.Contains(r.URL.Path, "/devices/") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(401)
		_, _ = w.Write([]byte(`{"session":"x","flows":[{"stages":["m.login.password"]}],"params":{}}`))
		return true
	})
	s.mustSay("1")
	if found, _ := s.as.DeviceSupport(t.Context()); found.Method != "login" {
		t.Errorf("found %+v", found)
	}
}

// A homeserver whose data was put back has lost a ghost that the bridge knows: it is registered again, once.
func TestB9_GhostThatTheHomeserverHasLost_IsRegisteredAgainBeforeAnythingIsDecided(t *testing.T) {
	for name, fault := range map[string]bridgetest.Fault{
		"PUT, Synapse":   {Method: "PUT", Path: regexp.MustCompile("/devices/"), Status: 403, ErrCode: "M_FORBIDDEN"},
		"PUT, Tuwunel":   {Method: "PUT", Path: regexp.MustCompile("/devices/"), Status: 400, ErrCode: "M_INVALID_PARAM"},
		"login, Synapse": {Method: "POST", Path: regexp.MustCompile("/login$"), Status: 404, ErrCode: "M_UNKNOWN"},
		"login, MSC2778": {Method: "POST", Path: regexp.MustCompile("/login$"), Status: 403, ErrCode: "M_FORBIDDEN"},
		"login, Tuwunel": {Method: "POST", Path: regexp.MustCompile("/login$"), Status: 400, ErrCode: "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, bridgetest.Synapse, withoutLoginRefusal)
			want := "msc4190"
			if fault.Method == "POST" {
				want = "login"
			}
			s.restart(mode(want))
			if err := s.as.Ghost(ghost).EnsureRegistered(t.Context()); err != nil {
				t.Fatal(err)
			}
			lost := false
			s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !lost || !strings.HasSuffix(r.URL.Path, "/register") {
					return false
				}
				lost = false
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"user_id":"@irc_ann:hs.test"}`))
				return true
			})
			lost = true
			s.hs.Fault(fault)
			if _, err := s.as.Ghost(ghost).EnsureDevice(t.Context()); err != nil {
				t.Fatal(err)
			}
			if found, _ := s.as.DeviceSupport(t.Context()); found.Method != want || !found.ActAs || lost {
				t.Errorf("found %+v, registered again %v", found, !lost)
			}
			s.wantDevices(s.known().DeviceID)
		})
	}
}

func TestC1_C4_C5_C13_ThePutNamesTheUserAndNoDevice_AndTheRegistrationInhibitsLogin(t *testing.T) {
	s := newSite(t, bridgetest.SynapseOAuth) // which refuses a registration that does not
	s.mustSay("1")
	puts := s.requests("PUT", "/devices/")
	if len(puts) != 1 || puts[0].Query.Get("user_id") != string(ghost) || puts[0].Query.Has("device_id") || puts[0].Query.Has("org.matrix.msc3202.device_id") {
		t.Errorf("%+v", puts)
	}
	if device := s.known().DeviceID; !regexp.MustCompile(`^[A-Za-z0-9\-._~]{10,}$`).MatchString(device) || !strings.HasSuffix(puts[0].Path, "/"+device) {
		t.Errorf("device ID %q, asked for as %s", device, puts[0].Path)
	}
	for _, r := range s.requests("POST", "/register$") {
		if r.Status != 200 {
			t.Errorf("%+v", r)
		}
	}
}

func TestC2_C3_DeviceThatIsMade_IsNotNamedAgain(t *testing.T) {
	for _, kind := range []bridgetest.Personality{bridgetest.Synapse, bridgetest.Continuwuity} { // 201 and 200 for a device that is new
		s := newSite(t, kind)
		s.mustSay("1")
		for range 3 {
			s.restart()
			s.mustSay("2")
		}
		if n := len(s.requests("PUT", "/devices/")); n != 1 {
			t.Errorf("%s: %d device PUTs", kind, n)
		}
	}
}

// Keys belong to a device ID. What the homeserver has lost comes back under another, and so nobody takes it for one that has keys.
func TestC2_E6_DeviceThatTheHomeserverLost_ComesBackOnceAndUnderAnotherID(t *testing.T) {
	for _, way := range ways {
		if !way.actAs {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			s := way.site(t)
			s.mustSay("1")
			first := s.known().DeviceID
			s.lose(first)
			s.mustSay("2")
			second := s.known().DeviceID
			if second == first || second == "" {
				t.Errorf("device %q, then %q", first, second)
			}
			s.wantDevices(second)
			s.mustSay("3")
			s.wantDevices(second)
		})
	}
}

func TestE6_HomeserverThatForgetsEveryDevice_IsNotGivenOneAfterAnother(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.mustSay("1")
	s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool { // from now on
		if !r.URL.Query().Has("device_id") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		_, _ = w.Write([]byte(`{"errcode":"M_UNKNOWN_DEVICE","error":"unknown"}`))
		return true
	})
	_ = s.say("2")
	for n := range 10 {
		if err := s.say("3"); err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
	}
	if n := len(s.requests("PUT", "/devices/")); n > 3 { // the first, the one instead of it, the one that showed what this homeserver does
		t.Errorf("%d devices were made", n)
	}
	if found, _ := s.as.DeviceSupport(t.Context()); found.ActAs {
		t.Errorf("found %+v", found)
	}
}

func TestC6_LimitedDevices_AreWaitedForAndMadeOnce(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.hs.Fault(bridgetest.Fault{Method: "PUT", Path: regexp.MustCompile("/devices/"), Times: 2, Status: 429, ErrCode: "M_LIMIT_EXCEEDED", RetryAfter: 1})
	s.mustSay("1")
	s.wantDevices(s.known().DeviceID)
	if found, _ := s.as.DeviceSupport(t.Context()); found.Method != "msc4190" {
		t.Errorf("found %+v", found)
	}
}

func TestC14_TokenInTheAnswerToARegistration_IsNotUsed(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/register") {
			return false
		}
		inner, err := http.NewRequest("POST", s.hs.URL()+r.URL.Path, strings.NewReader(`{"type":"m.login.application_service","username":"irc_ann","inhibit_login":true}`))
		if err != nil || r.Header.Get("Again") != "" {
			return false
		}
		inner.Header.Set("Authorization", r.Header.Get("Authorization"))
		inner.Header.Set("Again", "1")
		if resp, err := http.DefaultClient.Do(inner); err == nil {
			_ = resp.Body.Close()
		}
		http.DefaultClient.CloseIdleConnections()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"user_id": string(ghost), "access_token": "not-ours", "device_id": "NOTOURS"})
		return true
	})
	s.mustSay("1")
	if s.known().DeviceID == "NOTOURS" {
		t.Error("the device of the answer was taken")
	}
	for _, r := range s.requests("PUT", "/send/") {
		if r.AppService != "irc" {
			t.Errorf("%+v", r)
		}
	}
}
