package soak

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

// homeserver is bridgetest's.
type homeserver struct{ *bridgetest.Homeserver }

func (h homeserver) Register(registration string) error { return h.AddAppService(registration) }

func (h homeserver) Person(name string) (Person, error) { return person{h.User(name)}, nil }

func (h homeserver) Restart(meanwhile func()) {
	meanwhile()
	h.Homeserver.Restart()
}

func (h homeserver) Waiting() string {
	if as := h.AppServiceState(appService); as.Pending > 0 || as.Queued > 0 {
		return fmt.Sprintf("%d transactions, %d events in none", as.Pending, as.Queued)
	}
	return ""
}

func (h homeserver) Devices(_ context.Context, user id.UserID) (int, error) {
	return len(h.Homeserver.Devices(user)), nil
}

type person struct{ *bridgetest.User }

func (p person) CreateRoom(ctx context.Context, invite id.UserID) (id.RoomID, error) {
	return p.User.CreateRoom(ctx, bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{invite}})
}

func (p person) Join(ctx context.Context, room id.RoomID) error {
	_, err := p.User.Join(ctx, string(room))
	return err
}

func (p person) Leave(ctx context.Context, room id.RoomID) error { return p.User.Leave(ctx, room, "") }

func (p person) Redact(ctx context.Context, room id.RoomID, event id.EventID) (id.EventID, error) {
	return p.User.Redact(ctx, room, event, "")
}

func (p person) Sees(ctx context.Context, room id.RoomID, text string) error {
	_, err := p.WaitFor(ctx, room, bridgetest.Text(text))
	return err
}

func (p person) Timeline(ctx context.Context, room id.RoomID) (events []Event, err error) {
	all, err := p.User.Timeline(ctx, room)
	for _, ev := range all {
		events = append(events, Event{ID: ev.ID, Type: ev.Type, Sender: ev.Sender, Content: ev.Content})
	}
	return events, err
}

// ircServer is the test server.
type ircServer struct {
	*ircd.Server
	people sync.WaitGroup
}

func startIRC(t *testing.T) *ircServer {
	server, err := ircd.Start(ircd.Options{Listen: []string{}, PingInterval: 24 * time.Hour}) // people answer no PING
	if err != nil {
		t.Fatal(err)
	}
	s := &ircServer{Server: server}
	t.Cleanup(func() {
		_ = server.Close()
		s.people.Wait()
	})
	return s
}

func (s *ircServer) Enter(ctx context.Context, nick string, channels []string) error {
	client, server := net.Pipe()
	s.Serve(server)
	in := make(chan struct{})
	s.people.Go(func() {
		defer client.Close()
		left := len(channels)
		for lines := bufio.NewScanner(client); lines.Scan(); {
			if strings.Contains(lines.Text(), " 366 ") {
				if left--; left == 0 {
					close(in)
				}
			}
		}
	})
	if _, err := fmt.Fprintf(client, "NICK %s\r\nUSER %[1]s 0 * :%[1]s\r\nJOIN %s\r\n", nick, strings.Join(channels, ",")); err != nil {
		return err
	}
	select {
	case <-in:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not come into %v: %w", nick, channels, ctx.Err())
	}
}

func (s *ircServer) does(nick, line string) error {
	if !s.Do(nick, line) {
		return fmt.Errorf("%s is not on IRC", nick)
	}
	return nil
}

func (s *ircServer) Say(nick, channel, text string) error {
	return s.does(nick, "PRIVMSG "+channel+" :"+text)
}

func (s *ircServer) Quit(nick string) error { return s.does(nick, "QUIT :enough") }

func (s *ircServer) Members(_ context.Context, channel string) ([]string, error) {
	return s.Server.Members(channel), nil
}

// testWorld has the servers for tests.
func testWorld(t *testing.T, binary, delivery string, seed uint64, database string) Options {
	return Options{
		Homeserver: homeserver{bridgetest.NewHomeserver(t, bridgetest.Options{RestartSequence: true, RestartForgets: true})}, IRC: startIRC(t),
		Binary: binary, Delivery: delivery, Seed: seed, Database: database, Rooms: 20, Patience: 300 * time.Millisecond, Ahead: steps, Between: 8,
	}
}
