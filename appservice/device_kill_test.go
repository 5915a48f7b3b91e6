package appservice_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/killat"
	"github.com/trestle-bridge/trestle/store"
)

// speakerVariable holds, in the environment of a child process, what it is to say as the ghost.
const speakerVariable = "TRESTLE_TEST_SPEAKER"

type speech struct {
	Path, Homeserver, Mode string
	Registration           *appservice.Registration
	Room                   id.RoomID
	Remove                 bool // the device, instead of saying something
}

// TestSpeaker is no test, but the child process of those below: it speaks once.
func TestSpeaker(t *testing.T) {
	if os.Getenv(speakerVariable) == "" {
		return
	}
	var s speech
	if err := json.Unmarshal([]byte(os.Getenv(speakerVariable)), &s); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(context.Background(), "sqlite:"+s.Path, store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	as, err := appservice.New(appservice.Config{
		Registration: s.Registration, HomeserverURL: s.Homeserver, ServerName: "hs.test", Store: db, Handler: &listener{}, Log: zerolog.Nop(), DeviceMode: s.Mode,
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Remove {
		err = as.Ghost(ghost).RemoveDevice(context.Background())
	} else {
		_, err = as.Ghost(ghost).SendMessage(context.Background(), s.Room, event.EventMessage, map[string]string{"msgtype": "m.text", "body": "hi"}, "once")
	}
	if err != nil {
		t.Fatal(err)
	}
	killat.Done()
}

// speakUntil runs a process that speaks, until it has or is killed. It says which.
func (s *site) speakUntil(what speech, p killat.Point) (spoke bool) {
	s.t.Helper()
	what.Path, what.Homeserver, what.Registration, what.Room = s.path, s.hs.URL(), s.reg, s.room
	return killat.Test(s.t, "TestSpeaker", speakerVariable, what, s.hs, p)
}

// The points at which a process is killed.
var (
	killPoints = []killat.Point{
		killat.Before("PUT", "/devices/"), killat.After("PUT", "/devices/"), killat.Before("GET", "/whoami$"), killat.After("GET", "/whoami$"),
		killat.Before("POST", "/join/"), killat.After("PUT", "/send/"),
	}
	loginKillPoints = []killat.Point{
		killat.Before("GET", "/login$"), killat.Before("POST", "/login$"), killat.After("POST", "/login$"), killat.Before("POST", "/logout$"), killat.After("POST", "/logout$"),
	}
	removeKillPoints = []killat.Point{
		killat.Before("DELETE", "/devices/"), killat.After("DELETE", "/devices/"), killat.After("POST", "/login$"), killat.Before("POST", "/logout$"), killat.After("POST", "/logout$"),
	}
)

// A process dies between the device's ID, the request, its answer and the record of it, on every homeserver; the next one
// dies there too. Whatever they leave, the third ends with one device, known to both sides, and one login at most.
func TestC5_B14_KilledAnywhere_TheGhostHasOneDeviceAndNeverTwo(t *testing.T) {
	for _, way := range ways {
		points := killPoints
		if way.method == "login" {
			points = append(points[:len(points):len(points)], loginKillPoints...)
		}
		for _, p := range points {
			t.Run(fmt.Sprint(way.name, " ", p), func(t *testing.T) {
				s := way.site(t)
				s.stop()
				for range 2 {
					s.speakUntil(speech{Mode: way.mode}, p)
					if n := len(s.hs.Devices(ghost)); n > 1 {
						t.Errorf("%d devices", n)
					}
				}
				if !s.speakUntil(speech{Mode: way.mode}, killat.Point{}) {
					t.Fatal("the last process did not speak")
				}
				s.start(mode(way.mode))
				if way.actAs {
					s.wantDevices(s.known().DeviceID)
				} else {
					s.wantDevices()
				}
				if n := s.hs.Logins(ghost); n > 1 || n == 1 && (way.method != "login" || !way.actAs) {
					t.Errorf("%d logins", n)
				}
			})
		}
	}
}

func TestC9_KilledWhileADeviceIsRemoved_TheNextRemovesIt(t *testing.T) {
	for _, way := range ways {
		if !way.actAs {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			s := way.site(t)
			for _, p := range removeKillPoints {
				s.mustSay("1")
				s.stop()
				s.speakUntil(speech{Mode: way.mode, Remove: true}, p)
				s.start(mode(way.mode))
				if err := s.as.Ghost(ghost).RemoveDevice(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.wantDevices()
				if n := s.hs.Logins(ghost); n != 0 || s.known().DeviceID != "" {
					t.Errorf("%d logins, known %+v", n, s.known())
				}
			}
		})
	}
}
