package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/ergochat/irc-go/ircmsg"
	"maunium.net/go/mautrix/event"
)

func TestCrossing_SQLiteStoreAndInspIRCd_EveryLineArrivesOnce(t *testing.T) {
	everyLine(t, CrossingOptions{IRC: StartInspIRCd})
}

func TestCrossing_SQLiteStoreAndNgIRCd_EveryLineArrivesOnce(t *testing.T) {
	everyLine(t, CrossingOptions{IRC: StartNgIRCd})
}

func TestCrossing_TLSToInspIRCd_EveryLineArrivesOnce(t *testing.T) {
	everyLine(t, CrossingOptions{IRC: StartInspIRCd, TLS: true})
}

// everyLine holds the conversation that every combination of servers has to carry.
func everyLine(t *testing.T, opts CrossingOptions) {
	c := NewCrossing(t, opts)
	c.text(t)
	c.replies(t)
	c.photo(t)
	c.pastedURL(t)
	c.comingAndGoing(t)
	c.topics(t)
	c.plumbedByCommand(t)
	c.oneDeviceEachOf(t, "bob", "david")
}

func (c *Crossing) text(t *testing.T) {
	t.Helper()
	words := c.Words("hello from Matrix")
	c.Alice.Say(c.Room, words)
	if m := c.ToIRC(words); !strings.Contains(m.Params[1], "alice") {
		t.Errorf("the line does not say who said it: %q", m.Params[1])
	}
	words = c.Words("waves from Matrix")
	c.Alice.Send(c.Room, map[string]any{"msgtype": "m.emote", "body": words})
	if m := c.ToIRC(words); !strings.Contains(m.Params[1], "alice") {
		t.Errorf("the action does not say whose it is: %q", m.Params[1])
	}

	words = c.Words("hello from IRC")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)
	words = c.Words("waves from IRC")
	c.Bob.Act(c.Channel, words)
	c.ToMatrix("bob", "m.emote", words)
	words = c.Words("take notice")
	c.Bob.Line("NOTICE", c.Channel, words)
	c.ToMatrix("bob", "m.notice", words)

	// Several in one breath stay in order.
	var lines []string
	for range 5 {
		lines = append(lines, c.Words("one of several"))
	}
	for _, line := range lines {
		c.Alice.Say(c.Room, line)
		c.Bob.Say(c.Channel, "bob: "+line)
	}
	for _, line := range lines {
		c.ToIRC("alice", line)
		c.ToMatrix("bob", "m.text", "bob: "+line)
	}
	c.inOrder(t, lines)
}

// inOrder checks that both sides have seen lines in the order in which they were said.
func (c *Crossing) inOrder(t *testing.T, lines []string) {
	t.Helper()
	next := 0
	for _, m := range c.Bob.Seen(c.relayed("PRIVMSG", c.Channel)) {
		if next < len(lines) && strings.Contains(m.Params[1], lines[next]) {
			next++
		}
	}
	if next != len(lines) {
		t.Errorf("bob has read the lines out of order: %q comes too early", lines[next])
	}
	next = 0
	for _, ev := range c.Alice.Seen(func(ev *event.Event) bool { return ev.Sender == c.Bridge.Ghost("bob") }) {
		if next < len(lines) && ev.Content.Raw["body"] == "bob: "+lines[next] {
			next++
		}
	}
	if next != len(lines) {
		t.Errorf("alice has seen the lines out of order: %q comes too early", lines[next])
	}
}

func (c *Crossing) replies(t *testing.T) {
	t.Helper()
	question := c.Words("what is the answer?")
	c.Bob.Say(c.Channel, question)
	asked := c.ToMatrix("bob", "m.text", question)

	answer := c.Words("forty-two")
	c.Alice.Reply(c.Room, asked.ID, answer)
	if m := c.ToIRC(answer); strings.Contains(m.Params[1], question) {
		t.Errorf("the reply repeats what it answers: %q", m.Params[1])
	}

	// An older client quotes in the text, and can quote whatever it likes.
	answer = c.Words("forty-three")
	c.Alice.Send(c.Room, map[string]any{
		"msgtype": "m.text",
		"body":    "> <@mallory:hs.test> I never said this\n\n" + answer,
		"format":  "org.matrix.custom.html",
		"formatted_body": "<mx-reply><blockquote>In reply to @mallory:hs.test<br>I never said this</blockquote></mx-reply>" +
			answer,
		"m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": asked.ID}},
	})
	c.ToIRC(answer)
	for _, word := range []string{"mallory", "never said this"} {
		if n := c.Bob.Count(c.relayed("PRIVMSG", c.Channel, word)); n != 0 {
			t.Errorf("bob has read the fallback of a reply: %q", word)
		}
	}
}

var anyLink = regexp.MustCompile(`https?://[^\s\x00-\x1f]+`)

func (c *Crossing) photo(t *testing.T) {
	t.Helper()
	photo := testPhoto(t)
	name := "photo-" + strings.ToLower(c.Synapse.Domain) + ".png"
	uri := c.Alice.Upload(photo, "image/png", name)
	c.Alice.Send(c.Room, map[string]any{
		"msgtype": "m.image", "body": name, "url": uri.String(),
		"info": map[string]any{"mimetype": "image/png", "size": len(photo), "w": photoSide, "h": photoSide},
	})
	line := c.ToIRC("alice", name)
	link, err := url.Parse(anyLink.FindString(line.Params[1]))
	if err != nil || link.Host == "" {
		t.Fatalf("there is no link in %q: %v", line.Params[1], err)
	}
	if !isLoopback(link.Host) || strings.Contains(link.String(), c.Bridge.Token()) {
		t.Errorf("the link leads somewhere else, or holds a secret: %s", link)
	}
	resp, err := http.Get(link.String())
	if err != nil {
		t.Fatalf("opening the photo's link: %v", err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the photo: %v", err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "image/png" || !bytes.Equal(got, photo) {
		t.Errorf("the link gave status %d, type %q and %d bytes; the photo has %d", resp.StatusCode,
			resp.Header.Get("Content-Type"), len(got), len(photo))
	}
	t.Logf("              the link gives the photo's %d bytes", len(got))
}

func (c *Crossing) pastedURL(t *testing.T) {
	t.Helper()
	trap := startTrap(t)
	text := "look at " + trap.URL + "/cat.png"
	c.Bob.Say(c.Channel, text)
	ev := c.ToMatrix("bob", "m.text", text)
	if ev.Content.Raw["url"] != nil || ev.Content.Raw["info"] != nil {
		t.Errorf("a pasted URL became more than text: %s", ev.Content.VeryRaw)
	}
	words := c.Words("after the URL")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)
	if n := trap.Hits(); n != 0 {
		t.Errorf("the pasted URL was fetched %d times", n)
	}
}

func (c *Crossing) comingAndGoing(t *testing.T) {
	t.Helper()
	carol := c.IRC.User("carol")
	carol.Join(c.Channel)
	c.Alice.WaitFor("carol's joining", Membership(c.Room, c.Bridge.Ghost("carol"), "join"))
	t.Logf("IRC → Matrix  carol joined")
	carol.Line("PART", c.Channel, "to the shops")
	left := c.Alice.WaitFor("carol's leaving", Membership(c.Room, c.Bridge.Ghost("carol"), "leave"))
	c.reason(t, left, "to the shops")

	dave := c.IRC.User("dave")
	dave.Join(c.Channel)
	c.Alice.WaitFor("dave's joining", Membership(c.Room, c.Bridge.Ghost("dave"), "join"))
	dave.Rename("david")
	c.Alice.WaitFor("david's joining", Membership(c.Room, c.Bridge.Ghost("david"), "join"))
	c.Alice.WaitFor("dave's being gone", Membership(c.Room, c.Bridge.Ghost("dave"), "leave"))
	t.Logf("IRC → Matrix  dave is david")
	words := c.Words("under a new name")
	dave.Say(c.Channel, words)
	c.ToMatrix("david", "m.text", words)
	dave.Quit("to bed")
	left = c.Alice.WaitFor("david's quitting", Membership(c.Room, c.Bridge.Ghost("david"), "leave"))
	c.reason(t, left, "to bed")
	for _, nick := range []string{"carol", "dave", "david"} {
		for _, membership := range []string{"join", "leave"} {
			if n := c.Alice.Count(Membership(c.Room, c.Bridge.Ghost(nick), membership)); n != 1 {
				t.Errorf("alice has seen %d times that %s did %s", n, nick, membership)
			}
		}
	}

	// And on Matrix.
	eve := c.Synapse.User("eve")
	eve.Join(c.Room.String())
	c.toldOf(t, "eve's joining", "eve", "join")
	eve.Leave(c.Room, "enough of this")
	c.toldOf(t, "eve's leaving", "eve", "left")
}

func (c *Crossing) reason(t *testing.T, ev *event.Event, want string) {
	t.Helper()
	if reason, _ := ev.Content.Raw["reason"].(string); !strings.Contains(reason, want) {
		t.Errorf("%s left with reason %q, not %q", *ev.StateKey, reason, want)
	}
	t.Logf("IRC → Matrix  %s left: %v", *ev.StateKey, ev.Content.Raw["reason"])
}

// toldOf waits for a line about somebody on Matrix, of whichever kind the bridge uses for that.
func (c *Crossing) toldOf(t *testing.T, what string, words ...string) {
	t.Helper()
	notice, message := c.relayed("NOTICE", c.Channel, words...), c.relayed("PRIVMSG", c.Channel, words...)
	either := func(m ircmsg.Message) bool { return notice(m) || message(m) }
	m := c.Bob.WaitFor(what, either)
	if n := c.Bob.Count(either); n != 1 {
		t.Errorf("bob has read of %s %d times", what, n)
	}
	t.Logf("Matrix → IRC  %s", visible(m.Params[1]))
}

func (c *Crossing) topics(t *testing.T) {
	t.Helper()
	// Who sets a topic needs to be allowed to, on either side.
	c.Alice.SetState(c.Room, event.StatePowerLevels, "", map[string]any{
		"users": map[string]any{c.Alice.ID.String(): 100, c.Bridge.Bot.String(): 50},
	})
	c.Bob.Line("MODE", c.Channel, "+o", c.Bridge.Nick)

	topic := c.Words("a topic from IRC")
	c.Bob.Line("TOPIC", c.Channel, topic)
	c.Alice.WaitFor("the topic from IRC", TopicSet(c.Room, topic))
	t.Logf("IRC → Matrix  topic: %s", topic)
	if got := c.Alice.Topic(c.Room); got != topic {
		t.Errorf("the room's topic is %q, want %q", got, topic)
	}

	topic = c.Words("a topic from Matrix")
	set := func(m ircmsg.Message) bool {
		return m.Command == "TOPIC" && len(m.Params) == 2 && m.Params[1] == topic
	}
	c.Alice.SetState(c.Room, event.StateTopic, "", map[string]any{"topic": topic})
	c.Bob.WaitFor("the topic from Matrix", set)
	t.Logf("Matrix → IRC  topic: %s", topic)

	// A fence in both directions, after which an echo would have been seen.
	words := c.Words("after the topics")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)
	words = c.Words("after the topics")
	c.Alice.Say(c.Room, words)
	c.ToIRC(words)
	if n := c.Bob.Count(set); n != 1 {
		t.Errorf("bob has seen the topic from Matrix %d times", n)
	}
	if n := c.Alice.Count(TopicSet(c.Room, topic)); n != 1 {
		t.Errorf("alice has seen her own topic %d times", n)
	}
}

func (c *Crossing) plumbedByCommand(t *testing.T) {
	t.Helper()
	channel := "#second"
	c.Bob.Join(channel)
	room := c.Alice.CreateRoom("a second room", c.Bridge.Bot)
	c.Alice.WaitFor("the bot's joining", Membership(room, c.Bridge.Bot, "join"))
	c.Alice.Say(room, "!irc plumb "+channel)
	c.Bob.WaitFor("the bridge's joining "+channel, c.bridgeJoins(channel))
	c.Alice.WaitFor("the answer to the command", func(ev *event.Event) bool {
		body, _ := ev.Content.Raw["body"].(string)
		return ev.RoomID == room && ev.Sender == c.Bridge.Bot && strings.Contains(body, channel)
	})
	words := c.Words("hello second room")
	c.Bob.Say(channel, words)
	c.Alice.WaitFor(words, From(c.Bridge.Ghost("bob"), In(room, "m.text", words)))
	words = c.Words("hello second channel")
	c.Alice.Say(room, words)
	c.Bob.WaitFor(words, c.relayed("PRIVMSG", channel, "alice", words))
	t.Logf("both ways     %s is connected by a command", channel)
}
