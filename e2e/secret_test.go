//go:build goolm

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/olmclient"
)

// secretGhosts is how many people on IRC speak in the encrypted room.
const secretGhosts = 50

// secretLines is how many lines go each way in all: SECRET_LINES, or 500, which are six minutes when others keep both processors busy.
func secretLines(t *testing.T) int {
	t.Helper()
	lines := 500
	if value := os.Getenv("SECRET_LINES"); value != "" {
		var err error
		if lines, err = strconv.Atoi(value); err != nil || lines < 5*secretGhosts {
			t.Fatalf("SECRET_LINES is %q, and has to be a number from %d", value, 5*secretGhosts)
		}
	}
	return lines
}

// secret is a crossing whose room is encrypted, with people on both sides. Those on Matrix verify everything.
type secret struct {
	*Crossing
	t           *testing.T
	anna, carol *olmclient.Client
	crowd       []*IRCUser
	said        int
}

func newSecret(t *testing.T, mode string) *secret {
	t.Helper()
	s := &secret{t: t, Crossing: NewCrossing(t, CrossingOptions{Encryption: map[string]any{"mode": mode}})}
	s.anna, s.carol = s.Synapse.Strict("anna"), s.Synapse.Strict("carol")
	s.anna.Join(s.Room)
	s.carol.Join(s.Room)
	s.Alice.SetState(s.Room, event.StateEncryption, "", map[string]any{"algorithm": id.AlgorithmMegolmV1})
	encrypted := func(ev *olmclient.Event) bool { return ev.Type == event.StateEncryption.Type }
	s.anna.WaitFor("the encryption", encrypted)
	s.carol.WaitFor("the encryption", encrypted)
	began := time.Now()
	for n := range secretGhosts {
		user := s.IRC.User(fmt.Sprint("p", n))
		user.Join(s.Channel)
		s.crowd = append(s.crowd, user)
	}
	for n := range secretGhosts {
		ghost := s.Bridge.Ghost(fmt.Sprint("p", n))
		s.Alice.WaitFor("the ghost "+string(ghost), Membership(s.Room, ghost, "join"))
	}
	t.Logf("%d ghosts have their keys and are in the room after %s", secretGhosts, time.Since(began).Round(time.Millisecond))
	return s
}

// talk has as many lines go each way, does what is to happen after half of those from IRC, and waits until each was read by everybody, once.
func (s *secret) talk(what string, lines int, between func(), first, second *olmclient.Client) {
	s.t.Helper()
	began := time.Now()
	s.said++
	line := func(way string, n int) string { return fmt.Sprintf("%s %d %s %d.", what, s.said, way, n) }
	matrix := [2]*olmclient.Client{first, second}
	unread := [2]int{len(first.Unread(s.Room)), len(second.Unread(s.Room))} // of before it was known in the room
	for n := range lines {
		if n == lines/2 && between != nil {
			between()
		}
		s.crowd[n%len(s.crowd)].Say(s.Channel, line("to Matrix", n))
		if n >= lines/2 || between == nil {
			matrix[n%2].Say(s.Room, line("to IRC", n))
		}
	}
	for n := range lines / 2 {
		if between != nil {
			matrix[n%2].Say(s.Room, line("to IRC", n))
		}
	}
	sent := time.Since(began)
	for i, reader := range matrix {
		for n := range lines {
			reader.WaitFor(line("to Matrix", n), olmclient.Text(s.Room, line("to Matrix", n)))
		}
		read := map[any]int{}
		for _, ev := range reader.Seen(func(ev *olmclient.Event) bool { return ev.Encrypted && ev.Err == nil }) {
			read[ev.Content["body"]]++
		}
		for n := range lines {
			if got := read[line("to Matrix", n)]; got != 1 {
				s.t.Errorf("%s has read %q, encrypted, %d times", reader.User, line("to Matrix", n), got)
			}
		}
		if got := len(reader.Unread(s.Room)); got > unread[i] {
			s.t.Errorf("%s could not read %d events: %+v", reader.User, got-unread[i], reader.Unread(s.Room)[unread[i]])
		}
		for _, ev := range slices.Concat(reader.Untrusted(s.Room), reader.InTheClear(s.Room)) {
			s.t.Errorf("%s, to %s: %s of %s, a %s: in the clear: %v, error: %v", what, reader.User, ev.ID, ev.Sender, ev.Type, ev.InTheClear, ev.Err)
		}
	}
	for n := range lines {
		read := s.relayed("PRIVMSG", s.Channel, line("to IRC", n))
		s.Bob.WaitFor(line("to IRC", n), read)
		if got := s.Bob.Count(read); got != 1 {
			s.t.Errorf("bob has read %q %d times", line("to IRC", n), got)
		}
	}
	s.t.Logf("%s: %d lines each way, said in %s and read in %s", what, lines, sent.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// meets waits until somebody reads what a ghost and what anna says: until then neither need know of the device.
func (s *secret) meets(who *olmclient.Client) {
	s.t.Helper()
	began := time.Now()
	for _, say := range []func(text string){
		func(text string) { s.crowd[0].Say(s.Channel, text) },
		func(text string) { s.anna.Say(s.Room, text) },
	} {
		s.said++
		text := fmt.Sprintf("do you read me? %d.", s.said)
		who.WaitUntil("the first that it can read", func() bool {
			say(text)
			return len(who.Seen(olmclient.Text(s.Room, text))) > 0
		})
	}
	s.t.Logf("%s on %s is known after %s", who.User, who.Device, time.Since(began).Round(time.Millisecond))
}

func TestCrossing_EncryptedRoomOfFiftyGhosts_EverythingIsReadAndNothingInTheClear(t *testing.T) {
	lines := secretLines(t) / 5
	s := newSecret(t, "ghosts")
	s.talk("at first", lines, nil, s.anna, s.carol)

	s.Bridge.Kill()
	s.anna.Say(s.Room, "while the bridge was away.")
	s.Bridge.Start()
	s.Bob.WaitFor("the bridge's coming back", s.relayed("PRIVMSG", s.Channel, "while the bridge was away."))
	s.talk("after kill -9", lines, nil, s.anna, s.carol)

	s.Synapse.Stop()
	s.talk("before and after Synapse comes back", lines, s.Synapse.Start, s.anna, s.carol)

	phone := s.carol.NewDevice()
	s.carol.Logout()
	s.meets(phone)
	s.talk("one device logged out, and another new", lines, nil, s.anna, phone)

	dave := s.Synapse.Strict("dave")
	dave.Join(s.Room)
	s.anna.WaitFor("dave's joining", olmclient.Joined(s.Room, dave.User))
	s.anna.Say(s.Room, "dave is here.")
	s.Bob.WaitFor("what was said after dave's joining", s.relayed("PRIVMSG", s.Channel, "dave is here."))
	s.crowd[0].Say(s.Channel, "welcome, dave.") // the bridge has taken in that he is a member
	dave.WaitFor("the first that is said to a new member", olmclient.Text(s.Room, "welcome, dave."))
	s.meets(dave)
	s.talk("with a new member", lines, nil, phone, dave)
	s.anna.Clean(s.Room)
	if code := s.Bridge.Stop(); code != 0 {
		t.Errorf("the bridge ended with status %d", code)
	}
	if causes := s.Bridge.DeadLetters(); len(causes) > 0 {
		t.Errorf("dead letters: %q", causes)
	}
}
