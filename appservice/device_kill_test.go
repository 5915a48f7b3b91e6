package appservice_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
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

// TestSpeaker is no test, but the child process of those below: it speaks once, and says so on its standard output.
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
	fmt.Println("said")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
}

// speakUntil runs a process that speaks, and kills it as kill -9 does: when a request that matches has come and was not done
// yet (before), or was done and its answer is being sent (after), or when it has said that it has spoken. It says which.
func (s *site) speakUntil(what speech, method, path string, before bool) (spoke bool) {
	s.t.Helper()
	what.Path, what.Homeserver, what.Registration, what.Room = s.path, s.hs.URL(), s.reg, s.room
	env, err := json.Marshal(what)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSpeaker$")
	cmd.Env, cmd.Stderr = append(os.Environ(), speakerVariable+"="+string(env)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	pattern := regexp.MustCompile(path)
	reached := make(chan struct{}, 1)
	if method != "" {
		remove := s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !pattern.MatchString(r.URL.Path) || r.Header.Get("Inner") != "" {
				return false
			}
			if !before {
				s.forward(r)
			}
			_, _ = io.Copy(io.Discard, r.Body) // net/http sees the end of a connection only behind the body
			select {
			case reached <- struct{}{}:
			default:
			}
			<-r.Context().Done() // the process is dead, and its connection with it
			return true
		})
		defer remove()
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	said := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- strings.TrimSpace(line) == "said"
	}()
	select {
	case <-reached:
		_ = cmd.Process.Kill()
		<-said
	case spoke = <-said:
		_ = cmd.Process.Kill()
	}
	_ = in.Close()
	_ = cmd.Wait()
	return spoke
}

// forward makes a request that was intercepted have its effect.
func (s *site) forward(r *http.Request) {
	inner, err := http.NewRequest(r.Method, s.hs.URL()+r.URL.RequestURI(), r.Body)
	if err != nil {
		s.t.Error(err)
		return
	}
	inner.Header.Set("Authorization", r.Header.Get("Authorization"))
	inner.Header.Set("Inner", "1")
	resp, err := http.DefaultClient.Do(inner)
	if err != nil {
		s.t.Error(err)
		return
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// The points at which a process is killed: before a request is done, and after, when its answer is on the way.
var (
	killPoints = []killPoint{
		{"PUT", "/devices/", true}, {"PUT", "/devices/", false}, {"GET", "/whoami$", true}, {"GET", "/whoami$", false},
		{"POST", "/join/", true}, {"PUT", "/send/", false},
	}
	loginKillPoints = []killPoint{
		{"GET", "/login$", true}, {"POST", "/login$", true}, {"POST", "/login$", false}, {"POST", "/logout$", true}, {"POST", "/logout$", false},
	}
	removeKillPoints = []killPoint{
		{"DELETE", "/devices/", true}, {"DELETE", "/devices/", false}, {"POST", "/login$", false}, {"POST", "/logout$", true}, {"POST", "/logout$", false},
	}
)

type killPoint struct {
	method, path string
	before       bool
}

// A process dies between the device's ID, the request, its answer and the record of it, on every homeserver; the next one
// dies there too. Whatever they leave, the third ends with one device, known to both sides, and one login at most.
func TestC5_B14_KilledAnywhere_TheGhostHasOneDeviceAndNeverTwo(t *testing.T) {
	for _, way := range ways {
		points := killPoints
		if way.method == "login" {
			points = append(points[:len(points):len(points)], loginKillPoints...)
		}
		for _, p := range points {
			t.Run(fmt.Sprint(way.name, " ", p.method, p.path, " ", p.before), func(t *testing.T) {
				s := way.site(t)
				s.stop()
				for range 2 {
					s.speakUntil(speech{Mode: way.mode}, p.method, p.path, p.before)
					if n := len(s.hs.Devices(ghost)); n > 1 {
						t.Errorf("%d devices", n)
					}
				}
				if !s.speakUntil(speech{Mode: way.mode}, "", "", false) {
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
				s.speakUntil(speech{Mode: way.mode, Remove: true}, p.method, p.path, p.before)
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
