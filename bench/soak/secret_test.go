//go:build goolm

package soak

import (
	"context"
	"fmt"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/olmclient"
)

// killSecret kills the bridge while the rooms are encrypted: alice has keys, and takes and gives nothing that is not cross-signed.
func killSecret(t *testing.T, binary string, seed uint64, kills int) {
	opts := testWorld(t, binary, atMostOnce, seed, sqliteFile)
	opts.Homeserver = secretHomeserver{opts.Homeserver.(homeserver), t}
	opts.Kills, opts.Restarts, opts.Encryption = kills, kills/10, "ghosts"
	opts.Patience = 2 * time.Second // whoever is new makes keys first
	Run(t, opts)
}

type secretHomeserver struct {
	homeserver
	t *testing.T
}

func (h secretHomeserver) Person(name string) (Person, error) {
	user := h.User(name)
	if name != "alice" {
		return secretPerson{person: person{user}}, nil
	}
	device := olmclient.Start(h.t, olmclient.Options{URL: h.URL(), User: user.ID(), Password: name, HTTP: h.Client()})
	user.SetCipher(secretary{device})
	return reader{secretPerson{person{user}}, device, h.t}, nil
}

type secretPerson struct{ person }

func (p secretPerson) CreateRoom(ctx context.Context, invite id.UserID) (id.RoomID, error) {
	return p.User.CreateRoom(ctx, bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{invite}, Encrypt: true})
}

// reader is a person with a device that reads along.
type reader struct {
	secretPerson
	device *olmclient.Client
	t      *testing.T
}

// readerPatience is how long the device may be behind the person.
const readerPatience = 20 * time.Second

func (r reader) Wrong(rooms []id.RoomID) (wrong []string) {
	read, unread, plain := 0, 0, 0
	for _, room := range rooms {
		for deadline := time.Now().Add(readerPatience); len(r.device.Wrong(room)) > 0 && time.Now().Before(deadline); {
			time.Sleep(100 * time.Millisecond)
		}
		for _, ev := range r.device.Wrong(room) {
			wrong = append(wrong, fmt.Sprintf("%s of %s in %s, a %s: in the clear: %v, error: %v", ev.ID, ev.Sender, room, ev.Type, ev.InTheClear, ev.Err))
			if ev.InTheClear {
				plain++
			} else {
				unread++
			}
		}
		read += len(r.device.Seen(func(ev *olmclient.Event) bool { return ev.Room == room && ev.Encrypted }))
	}
	r.t.Logf("encrypted: alice has read %d events; %d could not be read or trusted, %d came in the clear", read, unread, plain)
	if read == 0 {
		wrong = append(wrong, "nothing at all was encrypted")
	}
	return wrong
}

// secretary encrypts and decrypts for the person.
type secretary struct{ device *olmclient.Client }

func (s secretary) Seal(ctx context.Context, room id.RoomID, eventType string, content any) (string, any, error) {
	kind, sealed, err := s.device.Seal(ctx, room, event.Type{Type: eventType, Class: event.MessageEventType}, content)
	return kind.Type, sealed, err
}

func (s secretary) Open(ev bridgetest.Event) bridgetest.Event {
	if len(ev.Content) == 0 {
		return ev // it was redacted
	}
	for end := time.Now().Add(readerPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if seen := s.device.ByID(ev.ID); seen != nil && seen.Err == nil {
			ev.Type, ev.Content = seen.Type, seen.Content
			break
		}
	}
	return ev
}
