package bridge_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestCommand_Plumb_NeedsPowerInTheRoom(t *testing.T) {
	c := unplumbed(t)
	mallory := c.hs.User("mallory")
	c.ok(c.alice.Invite(c.ctx, c.room, mallory.ID()))
	must(mallory.Join(c.ctx, string(c.room)))(t)
	must(mallory.SendText(c.ctx, c.room, "!test plumb lobby"))(t)
	c.seesNotice("You need power level 50 in this room for that; you have 0.")
	if c.net.Joined(lobby) {
		t.Error("the bridge joined the channel all the same")
	}
}

func TestCommand_Plumb_AdministratorNeedsNoPower(t *testing.T) {
	c := unplumbed(t, func(cfg *bridge.Config) { cfg.Bridge.Admins = append(cfg.Bridge.Admins, "@root:hs.test") })
	root := c.hs.User("root")
	c.ok(c.alice.Invite(c.ctx, c.room, root.ID()))
	must(root.Join(c.ctx, string(c.room)))(t)
	must(root.SendText(c.ctx, c.room, "!test plumb lobby"))(t)
	c.seesNotice("now connected to lobby")
}

func TestCommand_Plumb_ChannelThatRefuses_SaysWhyAndConnectsNothing(t *testing.T) {
	c := unplumbed(t)
	c.net.Refuse(lobby, bridge.Permanent(errors.New("you are banned")))
	c.says("!test plumb lobby")
	c.seesNotice("Scripted does not let me into lobby: you are banned.")
	c.net.Refuse(lobby, nil)
	c.says("!test status")
	c.seesNotice("connected to nothing")
}

func TestCommand_Plumb_ChannelOfAnotherRoom_IsRefused(t *testing.T) {
	c := newCrossing(t)
	other := must(c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{}))(t)
	c.ok(c.alice.Invite(c.ctx, other, c.b.BotID()))
	must(c.alice.WaitFor(c.ctx, other, bridgetest.Member(c.b.BotID(), "join")))(t)
	must(c.alice.SendText(c.ctx, other, "!test plumb lobby"))(t)
	must(c.alice.WaitFor(c.ctx, other, bridgetest.Message(c.b.BotID(), "lobby is connected to another room already.")))(t)
}

func TestCommand_Unplumb_TakesChannelAndGhostsAway(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Member(c.bob(), "join"))
	c.says("!test unplumb")
	c.seesNotice("no longer connected to lobby")
	if err := c.net.Say(c.ctx, lobby, "bob", "anybody?"); !errors.Is(err, bridge.ErrNoPortal) {
		t.Errorf("a message from the channel: %v, want ErrNoPortal", err)
	}
	if c.net.Joined(lobby) {
		t.Error("the bridge is still in the channel")
	}
	members := must(c.alice.Members(c.ctx, c.room))(t)
	if members[c.bob()] != "leave" {
		c.sees(bridgetest.Member(c.bob(), "leave"))
	}
}

func TestCommand_Help_ListsEveryCommand(t *testing.T) {
	c := unplumbed(t)
	c.says("!test")
	help := c.seesNotice("I connect this room to Scripted.").Body()
	for _, name := range []string{"help", "plumb CHANNEL", "unplumb", "status"} {
		if !strings.Contains(help, "!test "+name) {
			t.Errorf("help does not list %q: %s", name, help)
		}
	}
	c.says("!test dance")
	c.seesNotice(`I know no command "dance".`)
}

func TestCommand_OrdinaryText_IsNoCommand(t *testing.T) {
	c := newCrossing(t)
	c.says("!testing, one two")
	c.arrives("!testing, one two")
}

func TestPlumb_ByConfiguration_ConnectsAtStartAndIsTakenAwayWithIt(t *testing.T) {
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	hs, net := bridgetest.NewHomeserver(t), bridgetest.NewNetwork()
	alice := hs.User("alice")
	room := must(alice.CreateRoom(ctx, bridgetest.RoomOptions{Preset: "public_chat", Alias: "lobby"}))(t)
	b := bridgetest.StartBridge(t, hs, net, func(cfg *bridge.Config) {
		cfg.Bridge.Plumb = []bridge.Plumb{{Room: "#lobby:" + hs.Domain(), Channel: lobby}}
	})
	c := &crossing{T: t, ctx: ctx, hs: hs, net: net, b: b, alice: alice, room: room}
	c.ok(net.Wait(ctx, "the channel", func() bool { return net.Joined(lobby) }))
	c.says("hello")
	c.arrives("hello")
	c.says("!test unplumb")
	c.seesNotice("connected by the bridge's configuration")

	b.Stop()
	b.Config.Bridge.Plumb = nil
	b.Start()
	if err := net.Say(ctx, lobby, "bob", "anybody?"); !errors.Is(err, bridge.ErrNoPortal) {
		t.Errorf("after the configuration dropped it: %v, want ErrNoPortal", err)
	}
}

// What deletes devices needs the machine of the bridge and its files: in a room nobody can ask for it.
func TestC19_CommandsThatDeleteDevicesAndKeys_AreNotForRooms(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	before := c.hs.Devices(c.bob())
	for _, name := range []string{"uninstall", "reset-cross-signing", "logout", "delete_devices"} {
		c.says("!test " + name)
		c.seesNotice(`I know no command "` + name + `".`)
	}
	deletes := c.hs.Requests(func(r bridgetest.Request) bool {
		return r.Method == http.MethodDelete || strings.Contains(r.Path, "delete_devices") || strings.Contains(r.Path, "logout")
	})
	if after := c.hs.Devices(c.bob()); len(before) != 1 || !slices.Equal(before, after) || len(deletes) != 0 {
		t.Errorf("bob's ghost had devices %q and has %q, after %+v", before, after, deletes)
	}
}
