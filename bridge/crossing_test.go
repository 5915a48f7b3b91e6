package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// crossing is a room plumbed to the scripted network's channel "lobby", with alice in it.
type crossing struct {
	*testing.T
	ctx   context.Context
	hs    *bridgetest.Homeserver
	net   *bridgetest.Network
	b     *bridgetest.Bridge
	alice *bridgetest.User
	room  id.RoomID
}

const lobby = "lobby"

func newCrossing(t *testing.T, change ...func(*bridge.Config)) *crossing {
	t.Helper()
	c := unplumbed(t, change...)
	c.plumb()
	return c
}

// unplumbed is a room with alice and the bot in it.
func unplumbed(t *testing.T, change ...func(*bridge.Config)) *crossing {
	t.Helper()
	return unplumbedOn(t, bridgetest.NewHomeserver(t), change...)
}

func unplumbedOn(t *testing.T, hs *bridgetest.Homeserver, change ...func(*bridge.Config)) *crossing {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	c := &crossing{T: t, ctx: ctx, hs: hs, net: bridgetest.NewNetwork()}
	c.alice = c.hs.User("alice")
	c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
	c.b = bridgetest.StartBridge(t, c.hs, c.net, change...)
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	return c
}

func (c *crossing) plumb() {
	c.Helper()
	must(c.alice.SendText(c.ctx, c.room, "!test plumb "+lobby))(c.T)
	c.sees(bridgetest.Message(c.b.BotID(), "This room is now connected to lobby on Scripted."))
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func (c *crossing) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// sees waits until alice sees a matching event.
func (c *crossing) sees(match func(bridgetest.Event) bool) bridgetest.Event {
	c.Helper()
	return must(c.alice.WaitFor(c.ctx, c.room, match))(c.T)
}

// seesNotice waits for a notice of the bot that contains text.
func (c *crossing) seesNotice(text string) bridgetest.Event {
	c.Helper()
	return c.sees(func(e bridgetest.Event) bool { return e.Sender == c.b.BotID() && strings.Contains(e.Body(), text) })
}

func (c *crossing) says(text string) id.EventID {
	c.Helper()
	return must(c.alice.SendText(c.ctx, c.room, text))(c.T)
}

func (c *crossing) arrives(text string) bridge.Message {
	c.Helper()
	return must(c.net.WaitSent(c.ctx, text))(c.T)
}

// empowerBot lets the bot change the room's state.
func (c *crossing) empowerBot() {
	c.Helper()
	var levels map[string]any
	c.ok(c.alice.State(c.ctx, c.room, "m.room.power_levels", "", &levels))
	levels["users"].(map[string]any)[string(c.b.BotID())] = 50
	must(c.alice.SendState(c.ctx, c.room, "m.room.power_levels", "", levels))(c.T)
}

func (c *crossing) bob() id.UserID { return id.NewUserID("test_bob", c.hs.Domain()) }

func TestCrossing_MatrixMessage_ReachesTheNetwork(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.alice.SetDisplayName(c.ctx, "Alice Liddell"))
	event := c.says("hello")
	got := c.arrives("hello")
	if got.ID != event || got.Channel != lobby || got.Kind != bridge.KindText || got.Sender.ID != c.alice.ID() {
		t.Errorf("the network got %+v", got)
	}
	must(c.alice.SendEmote(c.ctx, c.room, "waves"))(t)
	if got := c.arrives("waves"); got.Kind != bridge.KindEmote {
		t.Errorf("an emote arrived as %q", got.Kind)
	}
	if got.Sender.Name != "Alice Liddell" && c.arrives("waves").Sender.Name != "Alice Liddell" {
		t.Errorf("the sender is called %q", got.Sender.Name)
	}
}

func TestCrossing_NetworkMessage_AppearsUnderItsGhostWithOneDevice(t *testing.T) {
	c := newCrossing(t)
	for _, text := range []string{"one", "two", "three"} {
		c.ok(c.net.Say(c.ctx, lobby, "bob", text))
		got := c.sees(bridgetest.Message(c.bob(), text))
		if got.MsgType() != "m.text" {
			t.Errorf("%q arrived as %s", text, got.MsgType())
		}
	}
	if devices := c.hs.Devices(c.bob()); len(devices) != 1 {
		t.Errorf("the ghost has devices %v, want exactly one", devices)
	}
	for _, r := range c.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/send/m.room.message/") }) {
		if r.User == c.bob() && r.Query.Get("device_id") == "" {
			t.Errorf("%s was sent without the ghost's device", r.Path)
		}
	}
}

func TestCrossing_KindsOfText_StayWhatTheyAre(t *testing.T) {
	c := newCrossing(t)
	for kind, want := range map[bridge.Kind]string{bridge.KindEmote: "m.emote", bridge.KindNotice: "m.notice"} {
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
			Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"},
			Text: &bridge.Text{Kind: kind, Body: string(kind), HTML: "<b>" + string(kind) + "</b>"},
		}))
		got := c.sees(bridgetest.Message(c.bob(), string(kind)))
		if got.MsgType() != want || got.Content["formatted_body"] != "<b>"+string(kind)+"</b>" {
			t.Errorf("%s arrived as %v", kind, got.Content)
		}
	}
}

func TestCrossing_SameRemoteIDTwice_IsOneMessage(t *testing.T) {
	c := newCrossing(t)
	for range 2 {
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
			Channel: lobby, ID: "m1", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: "once"},
		}))
	}
	c.ok(c.net.Say(c.ctx, lobby, "bob", "end"))
	c.sees(bridgetest.Message(c.bob(), "end"))
	count := 0
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(t) {
		if e.Body() == "once" {
			count++
		}
	}
	if count != 1 {
		t.Errorf("the message is there %d times", count)
	}
}

func TestCrossing_Replies_PointAtTheRealMessageWithoutFallback(t *testing.T) {
	c := newCrossing(t)
	c.net.MessageIDs = true
	first := c.says("question")
	c.arrives("question")
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
		Channel: lobby, ID: "r1", Sender: bridge.RemoteUser{ID: "bob", Name: "Bob"}, Text: &bridge.Text{Body: "answer", ReplyTo: "remote-1"},
	}))
	answer := c.sees(bridgetest.Message(c.bob(), "answer"))
	if answer.ReplyTo() != first {
		t.Errorf("the answer points at %q, want %q", answer.ReplyTo(), first)
	}
	if s := string(answer.Raw); strings.Contains(s, "mx-reply") || strings.Contains(s, `> <`) {
		t.Errorf("the answer has a reply fallback: %s", s)
	}
	must(c.alice.SendReply(c.ctx, c.room, answer.ID, "thanks"))(t)
	got := c.arrives("thanks")
	if got.ReplyTo == nil || got.ReplyTo.RemoteID != "r1" || got.ReplyTo.Name != "Bob" || !got.ReplyTo.Remote {
		t.Errorf("the reply is to %+v", got.ReplyTo)
	}
	must(c.alice.SendReply(c.ctx, c.room, first, "me again"))(t)
	if got := c.arrives("me again"); got.ReplyTo == nil || got.ReplyTo.RemoteID != "remote-1" || got.ReplyTo.Remote {
		t.Errorf("the reply to her own message is to %+v", got.ReplyTo)
	}
}

func TestCrossing_Photo_OpensByItsLinkUntilItIsRedacted(t *testing.T) {
	c := newCrossing(t)
	photo := append([]byte("\x89PNG\r\n\x1a\n"), bytes.Repeat([]byte{7}, 100_000)...)
	event := must(c.alice.SendImage(c.ctx, c.room, "photo.png", "image/png", photo))(t)
	c.ok(c.net.Wait(c.ctx, "the photo", func() bool { return len(c.net.Sent()) == 1 }))
	got := c.net.Sent()[0]
	if got.Kind != bridge.KindImage || got.Media == nil || got.Media.Name != "photo.png" || got.Media.Size != int64(len(photo)) {
		t.Fatalf("the network got %+v with %+v", got, got.Media)
	}
	status, body := get(t, got.Media.URL)
	if status != http.StatusOK || !bytes.Equal(body, photo) {
		t.Errorf("the link answers %d with %d bytes, want the photo's %d", status, len(body), len(photo))
	}
	must(c.alice.Redact(c.ctx, c.room, event, ""))(t)
	c.says("after the redaction")
	c.arrives("after the redaction")
	if status, _ := get(t, got.Media.URL); status != http.StatusGone {
		t.Errorf("the link of a redacted photo answers %d, want 410", status)
	}
}

func get(t *testing.T, url string) (status int, body []byte) {
	t.Helper()
	resp := must(http.Get(url))(t)
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode, must(io.ReadAll(resp.Body))(t)
}

func TestCrossing_FileFromTheNetwork_IsOnTheHomeserver(t *testing.T) {
	c := newCrossing(t)
	photo := bytes.Repeat([]byte("photo"), 10_000)
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
		Channel: lobby, ID: "f1", Sender: bridge.RemoteUser{ID: "bob"},
		File: &bridge.File{Name: "cat.jpg", MIME: "image/jpeg", Size: int64(len(photo)), Width: 4, Height: 3, Caption: "my cat", Content: bytes.NewReader(photo)},
	}))
	got := c.sees(bridgetest.Message(c.bob(), "my cat"))
	if got.MsgType() != "m.image" || got.Content["filename"] != "cat.jpg" {
		t.Errorf("the file arrived as %v", got.Content)
	}
	uri := must(got.MediaURI().Parse())(t)
	data, mime, err := c.alice.Download(c.ctx, uri)
	if err != nil || !bytes.Equal(data, photo) || mime != "image/jpeg" {
		t.Errorf("downloading gives %d bytes of %s, %v", len(data), mime, err)
	}
}

func TestCrossing_Topic_CrossesBothWaysOnce(t *testing.T) {
	c := newCrossing(t)
	c.empowerBot()
	must(c.alice.SetTopic(c.ctx, c.room, "from Matrix"))(t)
	c.ok(c.net.Wait(c.ctx, "the topic", func() bool { return c.net.Topic(lobby) == "from Matrix" }))
	topic := func(text string) error {
		return c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Topic: &bridge.Topic{Text: text}})
	}
	c.ok(topic("from Matrix")) // as an echo
	c.ok(topic("from the network"))
	c.sees(func(e bridgetest.Event) bool {
		return e.Type == "m.room.topic" && e.Content["topic"] == "from the network"
	})
	count := 0
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(t) {
		if e.Type == "m.room.topic" && e.Content["topic"] == "from Matrix" {
			count++
		}
	}
	if count != 1 {
		t.Errorf("the topic was set %d times on Matrix, want once", count)
	}
}

func TestCrossing_TopicThatTheBotMayNotSet_SaysSoInTheRoom(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Topic: &bridge.Topic{Text: "new"}}))
	c.seesNotice("I may not set this room's topic. Give me a higher power level")
}

func TestCrossing_Memberships_CrossBothWays(t *testing.T) {
	c := newCrossing(t)
	bob := bridge.RemoteUser{ID: "bob", Name: "Bob"}
	deliver := func(in *bridge.Incoming) { t.Helper(); in.Channel = lobby; c.ok(c.net.Deliver(c.ctx, in)) }
	deliver(&bridge.Incoming{Sender: bob, Join: &bridge.Join{}})
	if joined := c.sees(bridgetest.Member(c.bob(), "join")); joined.Content["displayname"] != "Bob" {
		t.Errorf("the ghost joined as %v", joined.Content)
	}
	robert := bridge.RemoteUser{ID: "robert", Name: "Robert"}
	deliver(&bridge.Incoming{Sender: robert, Rename: &bridge.Rename{From: bob}})
	if left := c.sees(bridgetest.Member(c.bob(), "leave")); left.Content["reason"] != "is now known as Robert" {
		t.Errorf("the ghost left with %v", left.Content)
	}
	ghost := id.NewUserID("test_robert", c.hs.Domain())
	c.sees(bridgetest.Member(ghost, "join"))
	deliver(&bridge.Incoming{Members: &bridge.Members{Users: []bridge.RemoteUser{bob}}})
	c.sees(bridgetest.Member(ghost, "leave"))
	c.sees(bridgetest.Member(c.bob(), "join"))
	deliver(&bridge.Incoming{Sender: bob, Leave: &bridge.Leave{Reason: "bye"}})
	c.sees(bridgetest.Member(c.bob(), "leave"))

	carol := c.hs.User("carol")
	c.ok(c.alice.Invite(c.ctx, c.room, carol.ID()))
	must(carol.Join(c.ctx, string(c.room)))(t)
	c.ok(carol.Leave(c.ctx, c.room, "enough"))
	c.ok(c.net.Wait(c.ctx, "carol's coming and going", func() bool { return len(c.net.Memberships()) == 2 }))
	got := c.net.Memberships()
	if !got[0].Joined || got[0].User.Name != "carol" || got[1].Joined || got[1].Reason != "enough" {
		t.Errorf("the network was told %+v", got)
	}
}

func TestCrossing_Typing_CrossesBothWays(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.alice.Typing(c.ctx, c.room, true))
	c.ok(c.net.Wait(c.ctx, "typing", func() bool { return len(c.net.Typing(lobby)) == 1 }))
	c.ok(c.alice.Typing(c.ctx, c.room, false))
	c.ok(c.net.Wait(c.ctx, "the end of typing", func() bool { return len(c.net.Typing(lobby)) == 0 }))

	c.ok(c.net.Say(c.ctx, lobby, "bob", "I am here"))
	c.sees(bridgetest.Message(c.bob(), "I am here"))
	c.net.Sink().Typing(lobby, bridge.RemoteUser{ID: "bob"}, true)
	c.sees(func(e bridgetest.Event) bool {
		return e.Type == "m.typing" && len(e.TypingUsers()) == 1 && e.TypingUsers()[0] == c.bob()
	})
}

func TestCrossing_ChannelWithoutARoom_SaysSo(t *testing.T) {
	c := newCrossing(t)
	if err := c.net.Say(c.ctx, "elsewhere", "bob", "hello?"); !errors.Is(err, bridge.ErrNoPortal) {
		t.Errorf("got %v, want ErrNoPortal", err)
	}
}

func TestCrossing_TopicThatTheNetworkCuts_StaysWholeOnMatrixAndIsToldOf(t *testing.T) {
	c := newCrossing(t)
	c.empowerBot()
	c.net.TopicLength = 5
	must(c.alice.SetTopic(c.ctx, c.room, "a long topic"))(t)
	c.seesNotice("On Scripted the topic is shorter: a lon")
	c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{Channel: lobby, Topic: &bridge.Topic{Text: "a lon"}})) // as after a reconnect
	c.ok(c.net.Say(c.ctx, lobby, "bob", "end"))
	c.sees(bridgetest.Message(c.bob(), "end"))
	var topic struct{ Topic string }
	c.ok(c.alice.State(c.ctx, c.room, "m.room.topic", "", &topic))
	if topic.Topic != "a long topic" {
		t.Errorf("nobody changed the topic, but it is now %q", topic.Topic)
	}
}

func TestCrossing_TopicWhoseDeliveryFailed_IsDeliveredAgain(t *testing.T) {
	c := newCrossing(t)
	c.empowerBot()
	in := &bridge.Incoming{Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Topic: &bridge.Topic{Text: "new topic"}}
	ended, cancel := context.WithCancel(c.ctx)
	cancel()
	if err := c.net.Deliver(ended, in); err == nil {
		t.Fatal("a delivery without a context succeeded")
	}
	c.ok(c.net.Deliver(c.ctx, in))
	c.sees(func(e bridgetest.Event) bool { return e.Type == "m.room.topic" && e.Content["topic"] == "new topic" })
}

func TestCrossing_TopicThatWasRefused_IsSetOnceTheBotMay(t *testing.T) {
	c := newCrossing(t)
	in := &bridge.Incoming{Channel: lobby, Topic: &bridge.Topic{Text: "new topic"}}
	c.ok(c.net.Deliver(c.ctx, in))
	c.seesNotice("I may not set this room's topic")
	c.empowerBot()
	c.ok(c.net.Deliver(c.ctx, in))
	c.sees(func(e bridgetest.Event) bool { return e.Type == "m.room.topic" && e.Content["topic"] == "new topic" })
}

func TestCrossing_ReplyToAMessageOfAnotherRoom_SaysNothingOfIt(t *testing.T) {
	c := newCrossing(t)
	c.net.MessageIDs = true
	secret := c.says("in the first room")
	c.arrives("in the first room")
	other := c.anotherRoom()
	must(c.alice.SendText(c.ctx, other, "!test plumb elsewhere"))(t)
	c.fromBot(other)
	must(c.alice.SendReply(c.ctx, other, secret, "what was that?"))(t)
	if got := c.arrives("what was that?"); got.ReplyTo == nil || got.ReplyTo.RemoteID != "" || got.ReplyTo.Name != "" {
		t.Errorf("the reply tells of another room's message: %+v", got.ReplyTo)
	}
}

func TestCrossing_WhatCannotCross_IsToldToItsSender(t *testing.T) {
	c := newCrossing(t)
	must(c.alice.Send(c.ctx, c.room, "m.poll.start", map[string]any{"m.text": "Tea or coffee?"}))(t)
	c.seesNotice("This message did not reach Scripted: Scripted has no polls.")
	must(c.alice.Send(c.ctx, c.room, "m.room.message", map[string]any{"body": "without a type"}))(t)
	c.arrives("without a type")
	c.says("!test " + strings.Repeat("x", 30_000))
	if answer := c.seesNotice("I know no command").Body(); len(answer) > 1000 {
		t.Errorf("the answer quotes %d bytes", len(answer))
	}
}

func TestCrossing_EditedPhoto_LinkEndsWithTheEditedMessage(t *testing.T) {
	c := newCrossing(t)
	original := must(c.alice.SendImage(c.ctx, c.room, "a.png", "image/png", []byte("\x89PNG\r\n\x1a\nfirst")))(t)
	uri := must(c.alice.Upload(c.ctx, "b.png", "image/png", []byte("\x89PNG\r\n\x1a\nsecond")))(t)
	image := map[string]any{"msgtype": "m.image", "body": "b.png", "url": uri.String()}
	must(c.alice.Send(c.ctx, c.room, "m.room.message", map[string]any{
		"msgtype": "m.image", "body": "* b.png", "url": uri.String(), "m.new_content": image,
		"m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": original},
	}))(t)
	c.ok(c.net.Wait(c.ctx, "both", func() bool { return len(c.net.Sent()) == 2 }))
	link := c.net.Sent()[1].Media.URL
	if status, _ := get(t, link); status != http.StatusOK {
		t.Fatalf("the link answers %d", status)
	}
	must(c.alice.Redact(c.ctx, c.room, original, ""))(t)
	c.says("marker")
	c.arrives("marker")
	if status, _ := get(t, link); status != http.StatusGone {
		t.Errorf("the redacted message was edited, and the edit's link still answers %d", status)
	}
}
