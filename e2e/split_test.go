package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
)

// TestLogin_NetworkIsSplit_WhatIsSaidOnEachSideArrivesOnce: the relay and bob are on one server, alice's login and dave on another. What is said on either side
// while the two are split arrives before they are joined again.
func TestLogin_NetworkIsSplit_WhatIsSaidOnEachSideArrivesOnce(t *testing.T) {
	one, two, between := StartInspIRCds(t)
	c := NewCrossing(t, CrossingOptions{
		IRC: func(testing.TB) *IRCServer { return one }, Gate: true,
		Network: map[string]any{"logins": 1, "flood": map[string]any{"burst": 1000, "interval": "1ms"}},
	})
	dave := two.User("dave")
	dave.Join(c.Channel)
	c.Bob.WaitFor("dave's joining", c.joining("dave"))
	c.Gate.Turn(two.Address)
	c.Alice.Say(c.Room, "!irc login alicia")
	for _, user := range []*IRCUser{c.Bob, dave} {
		user.WaitFor("the login's joining", c.joining("alicia"))
	}
	said := map[*IRCUser][]string{}
	say := func(user *IRCUser, words string) {
		user.Say(c.Channel, words)
		said[user] = append(said[user], words)
	}
	talk := func(when string) {
		for _, user := range []*IRCUser{c.Bob, dave} {
			for i := range 3 {
				say(user, fmt.Sprintf("%s's line %d %s.", user.Nick, i, when))
				say(user, user.Nick+"'s yes.") // the same at any time
			}
		}
	}
	talk("at first")
	for _, when := range []string{"in the split", "in the one after that"} {
		gone := [2]int{c.Bob.Count(quitting("dave")), dave.Count(quitting("bob"))}
		came := [2]int{c.Bob.Count(c.joining("dave")), dave.Count(c.joining("bob"))}
		between.Close()
		c.Bob.WaitFor("dave's being split off", c.again(quitting("dave"), gone[0]))
		dave.WaitFor("bob's being split off", c.again(quitting("bob"), gone[1]))
		talk(when)
		for _, nick := range []string{"bob", "dave"} {
			c.ToMatrix(nick, "m.text", fmt.Sprintf("%s's line 2 %s.", nick, when))
		}
		words := c.Words("to who is with the login")
		c.Alice.Say(c.Room, words)
		dave.WaitFor(words, saidOnIRC(c.Channel, words))
		between.Open()
		c.Bob.WaitFor("dave's return", c.again(c.joining("dave"), came[0]))
		dave.WaitFor("bob's return", c.again(c.joining("bob"), came[1]))
		talk("after the split that was " + when)
	}
	for user, lines := range said {
		last := user.Nick + "'s last line."
		user.Say(c.Channel, last)
		c.ToMatrix(user.Nick, "m.text", last)
		var arrived []string
		for _, ev := range c.Alice.Seen(func(ev *event.Event) bool { return ev.RoomID == c.Room && ev.Type == event.EventMessage }) {
			if body, _ := ev.Content.Raw["body"].(string); strings.HasPrefix(body, user.Nick+"'s ") && body != last {
				arrived = append(arrived, body)
			}
		}
		if !slices.Equal(arrived, lines) {
			t.Errorf("%s said %q, and of that arrived %q", user.Nick, lines, arrived)
		}
	}
	members := c.Alice.Members(c.Room)
	for nick, there := range map[string]bool{"bob": true, "dave": true, "alicia": false} {
		if _, is := members[c.Bridge.Ghost(nick)]; is != there {
			t.Errorf("the ghost of %s is in the room: %v", nick, is)
		}
	}
}
