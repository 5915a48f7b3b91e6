//go:build goolm

package olmclient_test

import (
	"errors"
	"fmt"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/olmclient"
)

// person is a user of bridgetest's homeserver with keys.
func person(t *testing.T, hs *bridgetest.Homeserver, name string, change func(*olmclient.Options)) *olmclient.Client {
	t.Helper()
	o := olmclient.Options{URL: hs.URL(), User: hs.User(name).ID(), Password: name, HTTP: hs.Client()}
	if change != nil {
		change(&o)
	}
	return olmclient.Start(t, o)
}

func pair(t *testing.T) (hs *bridgetest.Homeserver, alice, bob *olmclient.Client, room id.RoomID) {
	t.Helper()
	hs = bridgetest.NewHomeserver(t)
	alice, bob = person(t, hs, "alice", nil), person(t, hs, "bob", nil)
	room = alice.CreateRoom("secret")
	bob.Join(room)
	alice.WaitFor("bob's joining", olmclient.Joined(room, bob.User))
	return hs, alice, bob, room
}

func TestClients_InAnEncryptedRoom_ReadEachOther(t *testing.T) {
	_, alice, bob, room := pair(t)
	for i := range 120 { // more than a room key is for
		alice.Say(room, fmt.Sprint("a", i))
		bob.Say(room, fmt.Sprint("b", i))
	}
	for i := range 120 {
		if ev := bob.WaitFor("a line of alice's", olmclient.Text(room, fmt.Sprint("a", i))); !ev.Encrypted || ev.Trust != id.TrustStateCrossSignedTOFU {
			t.Fatalf("got %+v", ev)
		}
		alice.WaitFor("a line of bob's", olmclient.Text(room, fmt.Sprint("b", i)))
	}
	alice.Clean(room)
	bob.Clean(room)
	keys := bob.SenderKeys(alice.User)
	if len(keys) == 0 || len(keys[0].Signatures[alice.User]) != 2 {
		t.Fatalf("alice says of her device %+v, and not what her owner has signed", keys)
	}
	bob.Verify(alice.User)
	alice.Say(room, "verified")
	if ev := bob.WaitFor("a line of the verified", olmclient.Text(room, "verified")); ev.Trust != id.TrustStateCrossSignedVerified {
		t.Fatalf("the trust is %s", ev.Trust)
	}
}

func TestClients_DevicesComeAndGo_EachReadsFromItsBeginning(t *testing.T) {
	hs, alice, bob, room := pair(t)
	alice.Say(room, "before")
	bob.WaitFor("the first line", olmclient.Text(room, "before"))
	more := bob.NewDevice()
	if hs.Devices(bob.User)[0] == "" {
		t.Fatal("no device")
	}
	alice.WaitUntil("the new device", func() bool {
		alice.Say(room, "again")
		return len(more.Seen(olmclient.Text(room, "again"))) > 0
	})
	carol := person(t, hs, "carol", nil)
	carol.Join(room)
	alice.WaitFor("carol's joining", olmclient.Joined(room, carol.User))
	bob.Logout()
	alice.Say(room, "to those who are there")
	more.WaitFor("the last line", olmclient.Text(room, "to those who are there"))
	carol.WaitFor("the last line", olmclient.Text(room, "to those who are there"))
	carol.Clean(room) // nothing of what was before she came is counted
	alice.Clean(room)
}

func TestClient_WordsInTheClear_AreSeenAsSuch(t *testing.T) {
	hs, alice, bob, room := pair(t)
	if _, err := hs.User("bob").SendText(t.Context(), room, "plain"); err != nil {
		t.Fatal(err)
	}
	ev := alice.WaitFor("plain words", olmclient.Text(room, "plain"))
	alice.Send(room, event.EventReaction, map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": ev.ID, "key": "x"}})
	bob.WaitFor("the reaction", func(ev *olmclient.Event) bool { return ev.Type == event.EventReaction.Type })
	if got := alice.InTheClear(room); len(got) != 1 || got[0].ID != ev.ID {
		t.Fatalf("in the clear are %d events", len(got))
	}
}

func TestClient_OfADeviceThatNobodyVouchesFor_TakesAndGivesNothing(t *testing.T) {
	hs, alice, _, room := pair(t)
	mallory := person(t, hs, "mallory", func(o *olmclient.Options) { o.Unsigned, o.ShareWithAll = true, true })
	mallory.Join(room)
	alice.WaitFor("mallory's joining", olmclient.Joined(room, mallory.User))
	alice.Say(room, "not for mallory")
	mallory.Say(room, "let me in")
	alice.WaitUntil("words of mallory's", func() bool { return len(alice.Untrusted(room)) == 1 })
	if got := alice.Untrusted(room)[0]; got.Content["body"] != "let me in" || !got.Encrypted {
		t.Errorf("the words that are not accepted are recorded as %+v", got)
	}
	mallory.WaitUntil("words that it cannot read", func() bool { return len(mallory.Unread(room)) == 1 })
	if err := mallory.Unread(room)[0].Err; errors.Is(err, olmclient.ErrUntrusted) {
		t.Fatalf("got %v", err)
	}
}
