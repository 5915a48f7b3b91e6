package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"maunium.net/go/mautrix/event"
)

func TestCrossing_BridgeStoppedAndStarted_NothingIsLostOrDoubled(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	var fromMatrix, fromIRC []string
	say := func(what string) {
		words := c.Words(what)
		c.Alice.Say(c.Room, words)
		fromMatrix = append(fromMatrix, words)
	}
	hear := func(what string) {
		words := c.Words(what)
		c.Bob.Say(c.Channel, words)
		c.ToMatrix("bob", "m.text", words)
		fromIRC = append(fromIRC, words)
	}
	say("before")
	c.ToIRC(fromMatrix[0])
	hear("before")

	for _, stop := range []func(){
		func() {
			if code := c.Bridge.Stop(); code != 0 {
				t.Errorf("SIGTERM ended the bridge with status %d", code)
			}
		},
		c.Bridge.Kill,
	} {
		stop()
		c.Bob.WaitFor("the bridge's being gone", func(m ircmsg.Message) bool {
			return m.Command == "QUIT" && strings.EqualFold(m.Nick(), c.Bridge.Nick)
		})
		say("while the bridge was away")
		say("while the bridge was away still")
		joins := c.Bob.Count(c.bridgeJoins(c.Channel))
		c.Bridge.Start()
		c.Bob.WaitFor("the bridge's return", c.again(c.bridgeJoins(c.Channel), joins))
		say("after the return")
		c.ToIRC(fromMatrix[len(fromMatrix)-1])
		hear("after the return")
	}
	for _, words := range fromMatrix {
		c.ToIRC(words)
	}
	for _, words := range fromIRC {
		c.ToMatrix("bob", "m.text", words)
	}
	c.oneDeviceEachOf(t, "bob")
}

// again matches what match does, but only once bob has read more of it than before.
func (c *Crossing) again(match func(m ircmsg.Message) bool, before int) func(m ircmsg.Message) bool {
	return func(m ircmsg.Message) bool {
		if match(m) {
			before--
		}
		return before < 0
	}
}

func TestCrossing_SIGTERMInAFlood_DrainsAndForgetsNothing(t *testing.T) {
	// A narrow bucket, so that SIGTERM finds most lines still waiting.
	c := NewCrossing(t, CrossingOptions{Network: map[string]any{"flood": map[string]any{"burst": 2, "interval": "400ms"}}})
	var lines []string
	for range 20 {
		words := c.Words("one of a flood")
		c.Alice.Say(c.Room, words)
		lines = append(lines, words)
	}
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("SIGTERM ended the bridge with status %d", code)
	}
	read := c.Bob.Count(c.relayed("PRIVMSG", c.Channel, "one of a flood"))
	t.Logf("bob has read %d of %d lines before the bridge ended", read, len(lines))
	c.Bridge.Start()
	for _, words := range lines {
		c.ToIRC(words)
	}
	next := 0
	for _, m := range c.Bob.Seen(c.relayed("PRIVMSG", c.Channel, "one of a flood")) {
		if next < len(lines) && strings.Contains(m.Params[1], lines[next]) {
			next++
		}
	}
	if next != len(lines) {
		t.Errorf("the lines are out of order: %q comes too early", lines[next])
	}
}

func TestCrossing_SynapseKilledWhileIRCTalks_EveryLineArrivesOnceAndInOrder(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	var lines []string
	talk := func(n int) {
		for range n {
			words := c.Words("talk")
			c.Bob.Say(c.Channel, words)
			lines = append(lines, words)
			time.Sleep(20 * time.Millisecond) // a fast talker, not a burst: some lines are under way at the kill
		}
	}
	talk(15)
	c.Synapse.Kill()
	talk(15)
	c.Synapse.Start()
	talk(10)
	words := c.Words("the end of the talk")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)

	var got []string
	for _, ev := range c.Alice.Seen(func(ev *event.Event) bool {
		body, _ := ev.Content.Raw["body"].(string)
		return strings.HasPrefix(body, "talk (")
	}) {
		got = append(got, ev.Content.Raw["body"].(string))
	}
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("alice has seen\n%s\nbut bob said\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
	c.oneDeviceEachOf(t, "bob")

	// And Synapse still reaches the bridge.
	words = c.Words("hello again")
	c.Alice.Say(c.Room, words)
	c.ToIRC(words)
}

func TestCrossing_IRCServerKilledAndStarted_BothWaysWorkAgain(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{Gate: true})
	c.IRC.Kill()
	c.Gate.Close()
	words := c.Words("while IRC was away")
	c.Alice.Say(c.Room, words)
	c.IRC.Start()
	c.Bob = c.IRC.User("bob")
	c.Bob.Join(c.Channel)
	c.Gate.Open() // bob is there before the bridge
	c.Bob.WaitFor("the bridge in the channel", c.bridgeThere())
	c.ToIRC(words)
	words = c.Words("back again")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)
}

func TestCrossing_BridgeRestartedWhileTheIRCServerIsAway_EveryLineArrivesOnce(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{Gate: true})
	var lines []string
	say := func(n int) {
		for range n {
			words := c.Words("while IRC was away")
			c.Alice.Say(c.Room, words)
			lines = append(lines, words)
		}
	}
	c.IRC.Stop()
	c.Gate.Close()
	say(5)
	time.Sleep(3 * time.Second) // long enough for several attempts to send
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("SIGTERM ended the bridge with status %d", code)
	}
	say(5)
	c.Bridge.Start()
	say(5)
	c.IRC.Start()
	c.Bob = c.IRC.User("bob")
	c.Bob.Join(c.Channel)
	c.Gate.Open() // bob is there before the bridge
	for _, words := range lines {
		c.ToIRC(words)
	}
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("SIGTERM ended the bridge with status %d", code)
	}
	if causes := c.Bridge.DeadLetters(); len(causes) != 0 {
		t.Errorf("dead letters: %q", causes)
	}
}

// bridgeThere matches the bridge's joining, or its being in the channel's list of names already.
func (c *Crossing) bridgeThere() func(m ircmsg.Message) bool {
	joins := c.bridgeJoins(c.Channel)
	return func(m ircmsg.Message) bool {
		if joins(m) {
			return true
		}
		if m.Command != "353" || len(m.Params) < 4 || !strings.EqualFold(m.Params[2], c.Channel) {
			return false
		}
		for _, name := range strings.Fields(m.Params[3]) {
			if strings.EqualFold(strings.TrimLeft(name, "@+"), c.Bridge.Nick) {
				return true
			}
		}
		return false
	}
}

func (c *Crossing) oneDeviceEachOf(t *testing.T, nicks ...string) {
	t.Helper()
	for _, nick := range nicks {
		if devices := c.DevicesOf(c.Bridge.Ghost(nick)); len(devices) != 1 {
			t.Errorf("the ghost of %s has the devices %v, and should have one", nick, devices)
		}
	}
}
