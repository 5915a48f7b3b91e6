package e2e

import (
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
)

func TestCrossing_RoomTurnsOutToBeEncrypted_OneSentenceAndNoPlaintext(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	words := c.Words("in the clear")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)

	c.Alice.SetState(c.Room, event.StateEncryption, "", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"})
	sentence := func(ev *event.Event) bool {
		body, _ := ev.Content.Raw["body"].(string)
		return ev.RoomID == c.Room && ev.Sender == c.Bridge.Bot && strings.Contains(body, "encrypted")
	}
	ev := c.Alice.WaitFor("the bot's sentence", sentence)
	t.Logf("the bot says: %s", ev.Content.Raw["body"])

	// bob learns that nobody hears him, and not one of his words goes out in the clear.
	for range 3 {
		c.Bob.Say(c.Channel, c.Words("a secret"))
	}
	m := c.Bob.WaitFor("being told that it did not arrive", c.relayed("NOTICE", c.Channel, "did not reach"))
	t.Logf("bob is told: %s", m.Params[1])

	// alice says something that the bridge cannot read.
	c.Alice.SendCiphertext(c.Room)
	// A second room, whose traffic comes after.
	c.plumbedByCommand(t)
	if n := c.Alice.Count(func(ev *event.Event) bool {
		body, _ := ev.Content.Raw["body"].(string)
		return ev.RoomID == c.Room && strings.Contains(body, "a secret")
	}); n != 0 {
		t.Errorf("%d of bob's lines went into the encrypted room in the clear", n)
	}
	if n := c.Alice.Count(sentence); n != 1 {
		t.Errorf("the bot said its sentence %d times", n)
	}
}

func TestCrossing_InvitedToAnEncryptedRoom_SaysOneSentence(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	room := c.Alice.CreateEncryptedRoom("a secret room", c.Bridge.Bot)
	c.Alice.WaitFor("the bot's joining", Membership(room, c.Bridge.Bot, "join"))
	said := func(ev *event.Event) bool {
		return ev.RoomID == room && ev.Sender == c.Bridge.Bot && ev.Type.Type == event.EventMessage.Type
	}
	c.Alice.WaitFor("the bot's sentence", said)
	words := c.Words("elsewhere")
	c.Alice.Say(c.Room, words)
	c.ToIRC(words)
	if n := c.Alice.Count(said); n != 1 {
		t.Errorf("the bot said %d sentences", n)
	}
}
