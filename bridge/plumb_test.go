package bridge_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// anotherRoom is one more room with alice and the bot in it.
func (c *crossing) anotherRoom() id.RoomID {
	c.Helper()
	room := must(c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{}))(c.T)
	c.ok(c.alice.Invite(c.ctx, room, c.b.BotID()))
	must(c.alice.WaitFor(c.ctx, room, bridgetest.Member(c.b.BotID(), "join")))(c.T)
	return room
}

// fromBot waits for a notice of the bot in any room and returns its text.
func (c *crossing) fromBot(room id.RoomID) string {
	c.Helper()
	return must(c.alice.WaitFor(c.ctx, room, func(e bridgetest.Event) bool {
		return e.Sender == c.b.BotID() && e.Type == "m.room.message"
	}))(c.T).Body()
}

func TestPlumb_ManyRoomsAtOnce_OneGetsTheChannelAndTheOthersAreToldSo(t *testing.T) {
	c := unplumbed(t)
	rooms := []id.RoomID{c.room}
	for range 7 {
		rooms = append(rooms, c.anotherRoom())
	}
	for _, room := range rooms {
		must(c.alice.SendText(c.ctx, room, "!test plumb "+lobby))(t)
	}
	var winner id.RoomID
	for _, room := range rooms {
		switch text := c.fromBot(room); text {
		case "This room is now connected to lobby on Scripted.":
			if winner != "" {
				t.Errorf("%s and %s were both told that they are connected", winner, room)
			}
			winner = room
		case "lobby is connected to another room already.":
		default:
			t.Errorf("%s was told: %s", room, text)
		}
	}
	for i, room := range rooms {
		must(c.alice.SendText(c.ctx, room, fmt.Sprint("from ", i)))(t)
		must(c.alice.SendText(c.ctx, room, "!test status"))(t)
		c.fromBot(room)
	}
	if sent := c.net.Sent(); len(sent) != 1 || sent[0].Room != winner {
		t.Errorf("the network got %+v, want one message, of %s", sent, winner)
	}
	c.ok(c.net.Say(c.ctx, lobby, "bob", "where?"))
	must(c.alice.WaitFor(c.ctx, winner, bridgetest.Message(c.bob(), "where?")))(t)
}

func TestPlumb_UnplumbWhileTheChannelIsBeingEntered_StaysUnplumbed(t *testing.T) {
	c := newCrossing(t)
	c.b.Stop()
	c.net.Refuse(lobby, errors.New("the network is slow"))
	c.b.Start()
	c.says("!test unplumb")
	c.seesNotice("no longer connected to lobby")
	c.net.Refuse(lobby, nil)
	time.Sleep(1500 * time.Millisecond) // the next try would come after a second
	c.says("!test status")
	c.seesNotice("connected to nothing")
	if err := c.net.Say(c.ctx, lobby, "bob", "hello?"); !errors.Is(err, bridge.ErrNoPortal) || c.net.Joined(lobby) {
		t.Errorf("a message from the channel: %v, want ErrNoPortal; joined: %v", err, c.net.Joined(lobby))
	}
}

func configured(t *testing.T, room func(c *crossing) id.RoomID) *crossing {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	c := &crossing{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t), net: bridgetest.NewNetwork()}
	c.alice = c.hs.User("alice")
	c.room = room(c)
	c.b = bridgetest.StartBridge(t, c.hs, c.net, func(cfg *bridge.Config) {
		cfg.Bridge.Plumb = []bridge.Plumb{{Room: string(c.room), Channel: lobby}}
	})
	return c
}

func publicRoom(c *crossing) id.RoomID {
	return must(c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(c.T)
}

func (c *crossing) isConnected() {
	c.Helper()
	c.ok(c.net.Wait(c.ctx, "the channel", func() bool { return c.net.Joined(lobby) }))
}

func TestPlumbByConfiguration_OtherRoom_MovesTheChannel(t *testing.T) {
	c := configured(t, publicRoom)
	c.isConnected()
	c.b.Stop()
	old := c.room
	c.room = publicRoom(c)
	c.b.Config.Bridge.Plumb[0].Room = string(c.room)
	c.b.Start()
	c.isConnected()
	c.ok(c.net.Say(c.ctx, lobby, "bob", "where am I?"))
	c.sees(bridgetest.Message(c.bob(), "where am I?"))
	for _, e := range must(c.alice.Timeline(c.ctx, old))(t) {
		if e.Body() == "where am I?" {
			t.Error("the room that the configuration no longer has still gets messages")
		}
	}
}

func TestPlumbByConfiguration_ChannelIsNobodyElsesToTake(t *testing.T) {
	private := func(c *crossing) id.RoomID { return must(c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{}))(c.T) }
	c := configured(t, private) // the bot is not invited yet
	room := c.anotherRoom()
	must(c.alice.SendText(c.ctx, room, "!test plumb "+lobby))(t)
	if text := c.fromBot(room); text != "The bridge's configuration says what lobby is connected to." {
		t.Errorf("the bot says: %s", text)
	}
	c.ok(c.alice.Invite(c.ctx, c.room, c.b.BotID()))
	c.isConnected()
	c.says("hello")
	c.arrives("hello")
}

func TestPlumbByConfiguration_BotKickedAndInvitedAgain_ConnectsAgain(t *testing.T) {
	c := configured(t, publicRoom)
	c.isConnected()
	c.ok(c.alice.Kick(c.ctx, c.room, c.b.BotID(), "go away"))
	c.ok(c.net.Wait(c.ctx, "the bot to leave the channel", func() bool { return !c.net.Joined(lobby) }))
	c.ok(c.alice.Invite(c.ctx, c.room, c.b.BotID()))
	c.isConnected()
	c.says("back again")
	c.arrives("back again")
}

func TestPlumbByConfiguration_Removed_WhatStillWaitsIsToldToItsSender(t *testing.T) {
	c := configured(t, publicRoom)
	c.isConnected()
	c.net.FailSends(bridge.ErrOffline)
	c.says("does this still go out?")
	c.ok(c.net.Wait(c.ctx, "the first try", func() bool { return c.net.FaultsLeft() == 0 }))
	c.b.Stop()
	c.b.Config.Bridge.Plumb = nil
	c.b.Start()
	dead := must(c.b.DeadLetters(c.ctx, 1))(t)
	if len(dead) != 1 {
		t.Errorf("dead letters: %+v", dead)
	}
	c.seesNotice("This message did not reach Scripted: this room is no longer connected to lobby.")
}

// As when an administrator logs in as the bot and leaves a room: no event of somebody else's says that it has gone.
func TestInvitation_BotHasLeftWithoutTheBridge_ComesAgain(t *testing.T) {
	c := unplumbed(t)
	registration := must(appservice.LoadRegistration(c.b.Config.Appservice.Registration))(t)
	req := must(http.NewRequestWithContext(c.ctx, http.MethodPost, c.hs.URL()+"/_matrix/client/v3/rooms/"+url.PathEscape(string(c.room))+"/leave", strings.NewReader("{}")))(t)
	req.Header.Set("Authorization", "Bearer "+registration.ASToken)
	defer http.DefaultClient.CloseIdleConnections()
	resp := must(http.DefaultClient.Do(req))(t)
	c.ok(resp.Body.Close())
	c.sees(bridgetest.Member(c.b.BotID(), "leave"))
	c.ok(c.alice.Invite(c.ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
}
