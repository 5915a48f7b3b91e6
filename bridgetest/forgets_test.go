package bridgetest_test

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// The bot's rooms without a channel are read as well: people give it commands there.
func TestForgets_ACommandInARoomWithoutAChannel_TheBotAnswers(t *testing.T) {
	c := newTalk(t, bridgetest.Options{RestartForgets: true})
	room, err := c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{Invite: []id.UserID{c.b.BotID()}})
	c.ok(err)
	_, err = c.alice.WaitFor(c.ctx, room, bridgetest.Member(c.b.BotID(), "join"))
	c.ok(err)
	c.ok(c.hs.Settle(c.ctx))
	c.b.Stop()
	c.hs.PushFault(bridgetest.PushFault{Delay: time.Minute})
	c.says("cut off")
	command, err := c.alice.SendText(c.ctx, room, "!test help")
	c.ok(err)
	c.hs.Restart()
	c.b.Start()
	_, err = c.alice.WaitFor(c.ctx, room, func(ev bridgetest.Event) bool { return ev.Sender == c.b.BotID() && ev.ReplyTo() == command })
	c.ok(err)
}

// A room of which the homeserver does not give the history keeps no other waiting, and is asked for again.
func TestForgets_ARoomCannotBeReadAtFirst_TheOthersAreReadAndItAfterThem(t *testing.T) {
	c := newTalk(t, bridgetest.Options{RestartForgets: true})
	other, err := c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{Invite: []id.UserID{c.b.BotID()}})
	c.ok(err)
	_, err = c.alice.WaitFor(c.ctx, other, bridgetest.Member(c.b.BotID(), "join"))
	c.ok(err)
	c.ok(c.hs.Settle(c.ctx))
	c.b.Stop()
	c.hs.PushFault(bridgetest.PushFault{Delay: time.Minute})
	c.says("cut off")
	c.says("forgotten")
	command, err := c.alice.SendText(c.ctx, other, "!test help")
	c.ok(err)
	c.hs.Restart()
	for status, room := range map[int]id.RoomID{500: c.room, 502: other} {
		c.hs.Fault(bridgetest.Fault{Method: "GET", Path: regexp.MustCompile(regexp.QuoteMeta(string(room[1:])) + "/messages$"), Status: status})
	}
	c.b.Start()
	c.arrives("forgotten")
	_, err = c.alice.WaitFor(c.ctx, other, func(ev bridgetest.Event) bool { return ev.Sender == c.b.BotID() && ev.ReplyTo() == command })
	c.ok(err)
	if sent := c.network.Sent(); sent[len(sent)-2].Text != "cut off" {
		t.Errorf("the network got %v", sent)
	}
}

// So it looks when a homeserver takes longer for a large room than the proxy before it waits.
func TestForgets_ARoomHasNeverAnAnswer_TheOthersAreRead(t *testing.T) {
	c := newTalk(t, bridgetest.Options{RestartForgets: true})
	var others []id.RoomID // one of them is before the channel's in their order
	for range 12 {
		room, err := c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{Invite: []id.UserID{c.b.BotID()}})
		c.ok(err)
		_, err = c.alice.WaitFor(c.ctx, room, bridgetest.Member(c.b.BotID(), "join"))
		c.ok(err)
		others = append(others, room)
	}
	c.ok(c.hs.Settle(c.ctx))
	c.b.Stop()
	c.hs.PushFault(bridgetest.PushFault{Delay: time.Minute})
	c.says("cut off")
	c.says("forgotten")
	c.hs.Restart()
	first := slices.Min(others)
	c.hs.Fault(bridgetest.Fault{Method: "GET", Path: regexp.MustCompile(regexp.QuoteMeta(string(first[1:])) + "/messages$"), Drop: true, Times: -1})
	c.b.Start()
	c.arrives("forgotten")
}

// While nothing is under way Synapse has all in its database.
func TestForgets_NothingIsUnderWay_NothingIsForgotten(t *testing.T) {
	c := newTalk(t, bridgetest.Options{RestartForgets: true})
	c.b.Stop()
	c.hs.PushFault(bridgetest.PushFault{LoseAnswer: true})
	c.says("fails")
	for c.hs.AppServiceState(c.b.Config.Appservice.ID).Up && c.ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	c.says("kept")
	before := c.hs.AppServiceState(c.b.Config.Appservice.ID)
	c.hs.Restart()
	if after := c.hs.AppServiceState(c.b.Config.Appservice.ID); before.Pending < 2 || after.Pending != before.Pending || after.Queued != 0 {
		t.Errorf("%+v, and after the restart %+v", before, after)
	}
}
