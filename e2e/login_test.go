package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func TestLogin_InspIRCdAndSQLite_BridgeIsKilledAgainAndAgain_NothingIsLostOrDoubled(t *testing.T) {
	killLoggedIn(t, CrossingOptions{IRC: StartInspIRCd})
}

func TestLogin_NgIRCdAndPostgreSQL_BridgeIsKilledAgainAndAgain_NothingIsLostOrDoubled(t *testing.T) {
	killLoggedIn(t, CrossingOptions{IRC: StartNgIRCd, StorePostgres: StartPostgres(t)()})
}

const loginKills = 5

// killLoggedIn: alice has a login, which sits in the channel beside the relay, and both are killed while people talk. No server here has a history: what the bridge
// was given and had not stored when it was killed is nowhere, and so is what bob said while neither was there. That is all that may be missing, at the end of each
// process's share; what alice said is there once, or she was told that nobody knows.
func killLoggedIn(t *testing.T, opts CrossingOptions) {
	opts.Witness = true
	opts.Network = map[string]any{"logins": 1, "flood": map[string]any{"burst": 1000, "interval": "1ms"}, "reconnect": map[string]any{"first": "100ms", "max": "1s"}}
	c := NewCrossing(t, opts)
	c.Alice.Say(c.Room, "!irc login alicia")
	for _, nick := range []string{c.Bridge.Nick, "alicia"} {
		c.Bob.WaitFor(nick+"'s joining", c.joining(nick))
	}
	var byBob []string // all that he said
	var sure []string  // and that must be there: it was seen, or the process lived on
	var byAlice []string
	events := map[string]id.EventID{} // by what alice said in them
	alice := func(words string) {
		events[words] = c.Alice.Say(c.Room, words)
		byAlice = append(byAlice, words)
	}
	bob := func() string {
		words := fmt.Sprintf("bob's line %d.", len(byBob))
		c.Bob.Say(c.Channel, words)
		byBob = append(byBob, words)
		return words
	}
	talk := func(n int) {
		for range n {
			alice(fmt.Sprintf("alice's line %d.", len(byAlice)))
			bob()
		}
	}
	for kill := range loginKills + 1 {
		began := len(byBob)
		talk(10)
		last := bob()
		c.ToMatrix("bob", "m.text", last)
		sure = append(sure, byBob[began:]...)
		if kill == loginKills {
			break
		}
		talk(kill + 3) // some of that is under way
		gone := [2]int{c.Bob.Count(quitting(c.Bridge.Nick)), c.Bob.Count(quitting("alicia"))}
		came := [2]int{c.Bob.Count(c.joining(c.Bridge.Nick)), c.Bob.Count(c.joining("alicia"))}
		c.Bridge.Kill()
		for i, nick := range []string{c.Bridge.Nick, "alicia"} {
			c.Bob.WaitFor(nick+"'s being gone", c.again(quitting(nick), gone[i]))
		}
		talk(3)
		c.Bridge.Start()
		talk(5) // while they come back
		for i, nick := range []string{c.Bridge.Nick, "alicia"} {
			c.Bob.WaitFor(nick+"'s return", c.again(c.joining(nick), came[i]))
		}
		time.Sleep(200 * time.Millisecond) // a session that is shown to have joined has read it by then
	}
	words := "alice's last line."
	alice(words)
	c.Bob.WaitFor(words, saidOnIRC(c.Channel, words))

	var onMatrix []string
	told := 0
	for _, ev := range c.Alice.Seen(func(ev *event.Event) bool { return ev.RoomID == c.Room && ev.Type == event.EventMessage }) {
		body, _ := ev.Content.Raw["body"].(string)
		switch {
		case strings.HasPrefix(body, "This message ") && ev.Sender == c.Bridge.Bot:
			told++
		case strings.HasPrefix(body, "bob's line"):
			onMatrix = append(onMatrix, body)
		case strings.HasPrefix(body, "alice's ") && ev.Sender != c.Alice.ID:
			t.Errorf("what alice said came back to her: %q of %s", body, ev.Sender)
		}
	}
	lost, doubled, reordered := compare(sure, byBob, onMatrix)
	t.Logf("IRC to Matrix: %d said, %d arrived, %d lost, %d doubled, %d reordered", len(byBob), len(onMatrix), len(lost), len(doubled), len(reordered))
	if len(lost)+len(doubled)+len(reordered) > 0 {
		t.Errorf("to Matrix lost %q, doubled %q, reordered %q", lost, doubled, reordered)
	}

	var onIRC []string
	byLogin := 0
	for _, m := range c.Bob.Seen(saidOnIRC(c.Channel, "alice's ")) {
		if strings.EqualFold(m.Nick(), "alicia") {
			byLogin++
		}
		onIRC = append(onIRC, m.Params[1][strings.Index(m.Params[1], "alice's "):])
	}
	lost, doubled, late := compare(byAlice, byAlice, onIRC)
	reordered = nil // of the order in which the bridge was given them, which is not always that of writing
	for i, later := range onIRC {
		for _, earlier := range onIRC[:i] {
			x, y := events[later], events[earlier]
			// What no transaction brought was read from the room, and with it what was there before.
			if c.Bridge.Witness.Before(x, y) || !c.Bridge.Witness.Saw(y) && slices.Index(byAlice, later) < slices.Index(byAlice, earlier) {
				reordered = append(reordered, later+" after "+earlier)
			}
		}
	}
	t.Logf("Matrix to IRC: %d said, %d arrived (%d by the login), %d lost and %d told of, %d doubled, %d reordered; %d were given to the bridge late: %q",
		len(byAlice), len(onIRC), byLogin, len(lost), told, len(doubled), len(reordered), len(late), late)
	if len(lost) > told || len(doubled)+len(reordered) > 0 {
		t.Errorf("to IRC lost %q, told of %d, doubled %q, reordered %q", lost, told, doubled, reordered)
	}
	if byLogin < len(byAlice)/4 {
		t.Errorf("only %d lines went through the login: that shows little", byLogin)
	}
	members := c.Alice.Members(c.Room)
	if _, there := members[c.Bridge.Ghost("alicia")]; there {
		t.Error("alice's login has a ghost")
	}
}

// compare says which of must are missing, and which come twice, or out of the order in which they were said.
func compare(must, said, arrived []string) (lost, doubled, reordered []string) {
	last := -1
	for i, words := range arrived {
		at := slices.Index(said, words)
		switch {
		case slices.Contains(arrived[:i], words):
			doubled = append(doubled, words)
		case at < last:
			reordered = append(reordered, words)
		default:
			last = at
		}
	}
	for _, words := range must {
		if !slices.Contains(arrived, words) {
			lost = append(lost, words)
		}
	}
	return lost, doubled, reordered
}

func (c *Crossing) joining(nick string) func(m ircmsg.Message) bool {
	return func(m ircmsg.Message) bool {
		return m.Command == "JOIN" && strings.EqualFold(m.Nick(), nick) && len(m.Params) > 0 && strings.EqualFold(m.Params[0], c.Channel)
	}
}

func quitting(nick string) func(m ircmsg.Message) bool {
	return func(m ircmsg.Message) bool { return m.Command == "QUIT" && strings.EqualFold(m.Nick(), nick) }
}

func saidOnIRC(channel, words string) func(m ircmsg.Message) bool {
	return Said("PRIVMSG", channel, words)
}
