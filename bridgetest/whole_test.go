package bridgetest_test

import (
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// A bridge whole, on every homeserver, with its pushes and answers getting lost on the way.
func TestBridge_OnEveryHomeserver_LosesAndDoublesNothing(t *testing.T) {
	for _, homeserver := range bridgetest.Personalities() {
		t.Run(homeserver.String(), func(t *testing.T) {
			ctx, cancel := bridgetest.Timeout()
			defer cancel()
			hs, network := bridgetest.NewHomeserver(t, homeserver), bridgetest.NewNetwork()
			b := bridgetest.StartBridge(t, hs, network)
			alice := hs.User("alice")
			room, err := alice.CreateRoom(ctx, bridgetest.RoomOptions{Invite: []id.UserID{b.BotID()}})
			check(t, err)
			sees := func(match func(bridgetest.Event) bool) { _, err := alice.WaitFor(ctx, room, match); check(t, err) }
			says := func(text string) { _, err := alice.SendText(ctx, room, text); check(t, err) }
			sees(bridgetest.Member(b.BotID(), "join"))
			says("!test plumb lobby")
			sees(bridgetest.Message(b.BotID(), "This room is now connected to lobby on Scripted."))

			hs.PushFault(bridgetest.PushFault{LoseAnswer: true})               // the bridge has it, the homeserver does not know
			hs.Poison(b.Config.Appservice.ID, bridgetest.EventSection, `null`) // beside a good one
			says("one")
			// Some homeservers try again only over what comes after a failure: "two" must not come before it is noted.
			_, err = hs.WaitAppService(ctx, b.Config.Appservice.ID, func(s bridgetest.AppServiceState) bool { return s.Failed > 0 })
			check(t, err)
			says("two")
			_, err = network.WaitSent(ctx, "two")
			check(t, err)
			if sent := network.Sent(); len(sent) != 2 || sent[0].Text != "one" {
				t.Errorf("the network got %v", sent)
			}
			check(t, network.Say(ctx, "lobby", "bob", "hello"))
			sees(bridgetest.Message(b.GhostID(bridge.RemoteUser{ID: "bob"}), "hello"))
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
